"""The words of other libraries go to a file in the run folder, not to the terminal."""

import contextlib
import datetime
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from raygrad.cli.terminal import ThreadsAside, descriptor
from raygrad.errors import ConfigError, RaygradError

log = logging.getLogger("raygrad")


@contextlib.contextmanager
def noise_kept(run: str | None) -> Iterator[None]:
    """Writes what others than raygrad log, warn of and print to a file, while the context lasts.

    That is their log records from warnings on, Python's warnings, what threads other than the main
    one print, and what compiled code writes to standard error. At the end the file, unless it is
    empty, goes to `logs/` of the run folder, local or on S3.

    Args:
        run: The run folder; where there is none, or it does not exist, the file stays where it is
            and an error tells of it.
    """
    with tempfile.NamedTemporaryFile(
        "w", prefix="raygrad-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        failed = False
        try:
            with _turned_aside(cast(TextIO, file)):
                yield
        except RaygradError as error:
            failed = not isinstance(error, ConfigError)
            raise
        finally:
            file.flush()
            kept = _keep(Path(file.name), run)
            if failed and kept:
                log.info("what other libraries said of it: %s", kept)


@contextlib.contextmanager
def _turned_aside(file: TextIO) -> Iterator[None]:
    handler = logging.StreamHandler(file)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: record.name.partition(".")[0] != "raygrad")
    root, streams = logging.getLogger(), (sys.stdout, sys.stderr)
    root.addHandler(handler)
    logging.captureWarnings(True)
    sys.stdout, sys.stderr = (ThreadsAside(stream, file) for stream in streams)
    try:
        with _descriptor_aside(streams[1], file):
            yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = streams
        logging.captureWarnings(False)
        root.removeHandler(handler)


@contextlib.contextmanager
def _descriptor_aside(stream: TextIO, file: TextIO) -> Iterator[None]:
    """Turns the descriptor of standard error, which compiled code and child processes write to."""
    number = descriptor(stream)
    if number is None:
        yield
        return
    stream.flush()
    before = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(before, number)
        os.close(before)


def _keep(path: Path, run: str | None) -> str:
    """Moves the file to the run folder; returns where it is, or nothing where it was empty."""
    from raygrad.runs.layout import RunLayout
    from raygrad.storage import files

    content = path.read_bytes()
    if not content:
        path.unlink()
        return ""
    # A store that is not there has been told of already, or will be.
    with contextlib.suppress(OSError, RaygradError):
        if run and files.exists(RunLayout(run).config):
            now = datetime.datetime.now(datetime.UTC)
            url = files.join(RunLayout(run).logs, f"{now:%Y%m%dT%H%M%S}-{os.getpid()}.log")
            files.write_bytes(url, content)
            path.unlink()
            return url
    return str(path)
