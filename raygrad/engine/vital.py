"""Says that what a command's Ray cannot do without has gone.

Ray ends a driver whose raylet has gone after some ten seconds, and one whose control store (GCS)
has gone after a minute: out of compiled code, with status 1, and without a word.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from raygrad.engine import own_nodes
from raygrad.engine.address import check_answers
from raygrad.errors import ResourceError

log = logging.getLogger("raygrad")

_POLL_S = 0.5
_SURE_S = 1.0
"""A process that has gone is told of after this time, unless Ray was being shut down."""

_ASK_S = 5.0
_MAX_UNANSWERED = 3
"""How often in a row a joined Ray does not answer until it is told of; a busy head is slow."""

_watches: list[threading.Event] = []
"""What ends the watch that goes on, if any."""


def watch_own_ray(is_running: Callable[[], bool]) -> None:
    """Begins to watch the processes of the Ray that this process has started.

    Args:
        is_running: Whether Ray was not shut down, by whomever.
    """
    vital = own_nodes.children("raylet", "gcs_server")
    _begin(lambda ended: _watch_processes(vital, is_running, ended))


def watch_joined_ray(address: str, is_running: Callable[[], bool]) -> None:
    """Begins to ask the Ray that this process has joined whether it is there.

    Args:
        address: Where it was joined, as `check_answers` takes it.
        is_running: Whether Ray was not shut down, by whomever.
    """
    _begin(lambda ended: _watch_address(address, is_running, ended))


def _begin(watch: Callable[[threading.Event], None]) -> None:
    unwatch()
    ended = threading.Event()
    _watches.append(ended)
    threading.Thread(target=watch, args=(ended,), daemon=True, name="raygrad-vital").start()


def unwatch() -> None:
    """Ends the watch, as before Ray is shut down."""
    while _watches:
        _watches.pop().set()


def _watch_processes(
    vital: Sequence[tuple[str, Any]], is_running: Callable[[], bool], ended: threading.Event
) -> None:
    while not ended.wait(_POLL_S):
        gone = [name for name, process in vital if own_nodes.is_gone(process)]
        if gone:
            if not ended.wait(_SURE_S) and is_running():
                log.error(
                    "Ray's processes must run as long as the command, got the end of its %s "
                    "(killed, as a machine does that runs out of memory?). Ray ends what needs it "
                    "within a minute or so; what is done is kept: run the same line again.",
                    " and its ".join(gone),
                )
            return


def _watch_address(address: str, is_running: Callable[[], bool], ended: threading.Event) -> None:
    unanswered = 0
    while not ended.wait(_ASK_S) and is_running():
        try:
            check_answers(address)
        except ResourceError:
            unanswered += 1
            if unanswered == _MAX_UNANSWERED:
                log.error(
                    "the Ray at %s must answer as long as the command runs, got no answer for "
                    "%.0f s. Ray waits for it for a minute or so, then ends the command; what is "
                    "done is kept: run the same line again once it is there.",
                    address,
                    unanswered * _ASK_S,
                )
        else:
            if unanswered >= _MAX_UNANSWERED:
                log.warning("the Ray at %s answers again", address)
            unanswered = 0


atexit.register(unwatch)
