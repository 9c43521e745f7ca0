"""Says that a process of an own Ray has ended without which Ray cannot go on.

Ray ends a driver whose raylet has gone after some ten seconds, and one whose control store (GCS)
has gone after a minute: out of compiled code, with status 1, and without a word.
"""

import atexit
import logging
import threading
from collections.abc import Sequence
from typing import Any

from raygrad.engine import own_nodes

log = logging.getLogger("raygrad")

_POLL_S = 0.5
_SURE_S = 1.0
"""A process that has gone is told of after this time, unless Ray was being shut down."""

_watches: list[threading.Event] = []
"""What ends the watch that goes on, if any."""


def watch_own_ray() -> None:
    """Begins to watch the processes of the Ray that this process has started."""
    unwatch()
    ended = threading.Event()
    _watches.append(ended)
    vital = own_nodes.children("raylet", "gcs_server")
    threading.Thread(
        target=_watch, args=(vital, ended), daemon=True, name="raygrad-own-ray"
    ).start()


def unwatch() -> None:
    """Ends the watch, as before Ray is shut down."""
    while _watches:
        _watches.pop().set()


def _watch(vital: Sequence[tuple[str, Any]], ended: threading.Event) -> None:
    while not ended.wait(_POLL_S):
        gone = [name for name, process in vital if own_nodes.is_gone(process)]
        if gone:
            if not ended.wait(_SURE_S):
                log.error(
                    "Ray's processes must run as long as the command, got the end of its %s "
                    "(killed, as a machine does that runs out of memory?). Ray ends what needs it "
                    "within a minute or so; what is done is kept: run the same line again.",
                    " and its ".join(gone),
                )
            return


atexit.register(unwatch)
