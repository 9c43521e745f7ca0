"""What the terminal shows, stages, progress and warnings to act on, and where all the rest goes."""

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from raygrad.progress import ProgressState


class TerminalHandler(logging.Handler):
    """Shows raygrad's lines: on a terminal progress is a bar that redraws itself, else lines.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.INFO)
        self._stream = stream
        is_terminal = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._bar = _Bar(stream) if is_terminal else None

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a line, or draws the bar anew."""
        state, text = getattr(record, "progress", None), record.getMessage()
        if self._bar is None:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        elif state is None or state.done >= state.total:
            self._bar.line(text, is_end=state is not None)
        else:
            self._bar.draw(state)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.end()
        super().close()


class _Bar:
    """A bar at the foot of a terminal, with the lines above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, force_terminal=True)
        self._shown: Any = None
        self._task: Any = None

    def draw(self, state: ProgressState) -> None:
        """Draws how far a stage is."""
        from rich import progress

        if self._shown is None:
            columns = (
                "{task.description}",
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                "{task.fields[note]}",
            )
            # The streams are kept from other libraries elsewhere.
            self._shown = progress.Progress(
                *columns,
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._shown.add_task(state.stage, note="")
        self._shown.update(
            self._task,
            description=state.stage,
            completed=max(state.done, 0),
            total=state.total,
            note=state.note,
            refresh=True,
        )
        self._shown.start()

    def line(self, text: str, *, is_end: bool) -> None:
        """Writes a line above the bar; the last line of a stage stands in the bar's place."""
        if is_end:
            self.end()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Takes the bar away."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


@contextlib.contextmanager
def shown_lines() -> Iterator[None]:
    """Shows on standard error, while the context lasts, what raygrad logs."""
    stream = _own_copy(sys.stderr)
    handler, log = TerminalHandler(stream), logging.getLogger("raygrad")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        if stream is not sys.stderr:
            stream.close()


def _own_copy(stream: TextIO) -> TextIO:
    """Returns the stream as a file of its own, which stays where `Noise` turns the descriptor."""
    if descriptor(stream) is None:
        return stream
    return os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="replace")


def descriptor(stream: TextIO) -> int | None:
    """Returns the file descriptor of a stream, None where a test or a notebook has replaced it."""
    try:
        return stream.fileno()
    except (io.UnsupportedOperation, AttributeError, ValueError):
        return None


class ThreadsAside(io.TextIOBase):
    """A stream that the main thread writes to as ever, and other threads write aside.

    Ray prints what it has to say of its processes from threads of its own.

    Args:
        stream: The stream.
        aside: Where other threads write to.
    """

    def __init__(self, stream: TextIO, aside: TextIO) -> None:
        super().__init__()
        self._stream, self._aside = stream, aside

    def write(self, text: str) -> int:
        """Writes to where the thread's words belong."""
        is_main = threading.current_thread() is threading.main_thread()
        chosen = self._stream if is_main else self._aside
        # Libraries keep the stream that they found; what they say when all is over is not kept.
        return len(text) if chosen.closed else chosen.write(text)

    def flush(self) -> None:
        """Writes out what is held back."""
        if not self._stream.closed:
            self._stream.flush()

    def fileno(self) -> int:
        """Returns the stream's descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Tells whether the stream is a terminal."""
        return not self._stream.closed and self._stream.isatty()

    def writable(self) -> bool:
        """It is."""
        return True
