"""The clock that ends an actor whose work stands still."""

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import final

_LEAST_S = 0.001


@final
class Clock:
    """Ends this process where one of the things that it watches shows no life for too long.

    It is one clock in C, which needs no lock of the interpreter: code that holds it is ended too.

    Args:
        timeout_s: Seconds without a sign of life.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until_s: dict[object, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Callable[[], None]]:
        """Watches something while the context lasts; gives what is called as a sign of its life."""
        watched = object()

        def still_alive() -> None:
            with self._lock:
                self._until_s[watched] = time.monotonic() + self._timeout_s
                self._set()

        still_alive()
        try:
            yield still_alive
        finally:
            with self._lock:
                del self._until_s[watched]
                self._set()

    def _set(self) -> None:
        if not self._until_s:
            faulthandler.cancel_dump_traceback_later()
            return
        left_s = max(min(self._until_s.values()) - time.monotonic(), _LEAST_S)
        faulthandler.dump_traceback_later(left_s, exit=True, file=sys.__stderr__ or 2)
