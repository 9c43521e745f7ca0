"""Ctrl-C and SIGTERM of a command: told apart, and never lost.

Ray's core takes the KeyboardInterrupt that comes while it waits and returns a status in its place;
a call that does not look at the status, as one that is made while objects are freed, loses it, and
the command would go on as if nobody had asked it to stop. What was received is therefore kept, and
raised again where work goes on.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

EXIT_INTERRUPTED, EXIT_TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses of a command that was stopped by Ctrl-C, and by SIGTERM."""
STOPPED = "stopped; the same command goes on from here"
"""What such a command says at its end."""

_commands: list[list[signal.Signals]] = []
"""The signals that each command of this process received which is under way, the inner one last."""


@contextlib.contextmanager
def heard() -> Iterator[list[signal.Signals]]:
    """Makes SIGTERM, by which batch systems and spot nodes end a process, what Ctrl-C is.

    A SIGINT that is ignored, as a shell does with what it puts into the background, stays so.
    Outside the main thread, which alone is sent signals, nothing changes.

    Yields:
        The signals that were received, the earliest first.

    Raises:
        KeyboardInterrupt: One was received, at once; where that was lost, at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    before = {
        number: signal.signal(number, _stop)
        for number in (signal.SIGINT, signal.SIGTERM)
        if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler
    }
    received: list[signal.Signals] = []
    _commands.append(received)
    try:
        yield received
        go_on()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _commands.pop()


def _stop(number: int, _: object) -> None:
    for received in _commands:
        received.append(signal.Signals(number))
    raise KeyboardInterrupt


def go_on() -> None:
    """Called where work goes on, in whatever thread.

    Raises:
        KeyboardInterrupt: The command was asked to stop, and what said so was lost. Only in the
            main thread, and not while a KeyboardInterrupt is dealt with already.
    """
    if not any(_commands) or threading.current_thread() is not threading.main_thread():
        return
    if not isinstance(sys.exception(), KeyboardInterrupt):
        raise KeyboardInterrupt
