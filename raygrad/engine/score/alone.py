"""Who may be under way beside whom in an actor."""

import contextlib
import threading
from collections.abc import Iterator
from typing import final


@final
class Alone:
    """Lets some things be under way together, and others only while nothing else is."""

    def __init__(self) -> None:
        self._running = self._wanting = 0
        self._is_alone = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def admitted(self, alone: bool) -> Iterator[None]:
        """Is entered as soon as it may be; what wants to be alone goes before what comes later."""
        with self._changed:
            self._wanting += alone
            self._changed.wait_for(
                lambda: self._running == 0 if alone else not (self._wanting or self._is_alone)
            )
            self._wanting -= alone
            self._running += 1
            self._is_alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._is_alone = False
                self._changed.notify_all()
