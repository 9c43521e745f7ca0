"""When a run folder was worked on: a small file for every start of a stage, whatever ended it.

Times of trainings say what a study cost in computing, and nothing of how long it took: trials run
beside each other, stages load and wait, and what was killed was for nothing.
"""

import contextlib
import datetime
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from raygrad import __version__
from raygrad.errors import DataError
from raygrad.runs.layout import json_names, one_name
from raygrad.storage import files

log = logging.getLogger("raygrad")

BEAT_S = 30.0
"""A file is written again this often, so that of a killed process this much is not known."""

PATIENCE_S = 5.0
"""A store that takes longer is not waited for, at the beginning and at the end."""

_names: dict[int, str] = {}
"""The name of this process by its number: a fork of one that has a name draws its own."""

Outcome = Literal["running", "complete", "failed", "interrupted"]


@dataclass(frozen=True)
class Entry:
    """One start of a stage."""

    stage: str
    started_s: float
    """Seconds since 1970."""
    seconds: float
    """How long it was worked on, as far as is known."""
    outcome: Outcome
    """What ended it; one that is `running` and not written again was killed."""
    process: str
    """The same for all that one process did."""
    version: str
    """Of raygrad."""


def _name() -> str:
    return _names.setdefault(os.getpid(), uuid.uuid4().hex[:8])


@contextlib.contextmanager
def recorded(url: str, stage: str) -> Iterator[None]:
    """Records in the folder `url` how long the context lasts and what ends it.

    A journal that cannot be written costs the record, never the work.
    """
    entry = Entry(stage, time.time(), 0.0, "running", _name(), __version__)
    page = _Page(url, entry)
    outcome: Outcome = "failed"
    try:
        yield
        outcome = "complete"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        page.close(outcome)


class _Page:
    """The file of one entry, written at its beginning, from time to time, and at its end.

    A thread writes it, so that a store that does not answer holds up neither the work nor Ctrl-C.
    """

    def __init__(self, url: str, entry: Entry) -> None:
        at = datetime.datetime.fromtimestamp(entry.started_s, datetime.UTC)
        stage = one_name(entry.stage)
        name = f"{at:%Y%m%dT%H%M%S}-{stage}-{uuid.uuid4().hex[:8]}.json"
        self._url, self._entry = files.join(url, name), entry
        self._start_s = time.monotonic()
        self._begun, self._ended, self._failed = threading.Event(), threading.Event(), False
        self._outcome: Outcome = "running"
        self._writer = threading.Thread(target=self._write_all, daemon=True, name="raygrad-journal")
        self._writer.start()
        self._begun.wait(PATIENCE_S)

    def close(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._ended.set()
        self._writer.join(PATIENCE_S)

    def _write_all(self) -> None:
        while True:
            ended = self._ended.is_set()  # asked before the last state is written
            self._write()
            self._begun.set()
            if ended:
                return
            self._ended.wait(BEAT_S)

    def _write(self) -> None:
        seconds = round(time.monotonic() - self._start_s, 3)
        entry = replace(self._entry, seconds=seconds, outcome=self._outcome)
        try:
            files.write_bytes(self._url, json.dumps(asdict(entry), indent=1).encode())
        except Exception as error:  # noqa: BLE001 - whatever the store raises
            if not self._failed:
                log.warning("journal: %s is not written: %s", self._url, error)
            self._failed = True


def read_journal(url: str) -> list[Entry]:
    """Returns the entries in the folder `url`, the earliest first; none of before there were any.

    Raises:
        DataError: A file is no entry.
    """
    entries = []
    for name in json_names(url):
        file = files.join(url, name)
        try:
            values = json.loads(files.read_bytes(file))
            entries.append(Entry(**{name: values[name] for name in Entry.__dataclass_fields__}))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"a journal must hold entries alone, got {error!r} in {file}. Remove the file."
            ) from error
    return sorted(entries, key=lambda entry: entry.started_s)


def wall_s(entries: Sequence[Entry]) -> float:
    """Returns the seconds in which at least one of the entries was at work."""
    total, until_s = 0.0, float("-inf")
    for entry in sorted(entries, key=lambda entry: entry.started_s):
        end_s = entry.started_s + entry.seconds
        total += max(0.0, end_s - max(entry.started_s, until_s))
        until_s = max(until_s, end_s)
    return total
