"""Parts of the index: what the scan of each shard found, kept so that no shard is scanned twice.

A part is named by all that it depends on: its shard's URL, size and version, and how labels and
images are found. One that is there is therefore right; a shard that changed has another. Where
storage names no version of a file, its shard is scanned each time.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raygrad.data.index_rows import PART_SCHEMA, part_rows, text_counts
from raygrad.data.label_rules import LabelRule
from raygrad.data.shard_scan import ShardScan, scan_shard
from raygrad.data.small_files import tables_of
from raygrad.data.unpacking import unpack
from raygrad.errors import ConfigError
from raygrad.storage import files

FOLDER = "index-parts"
"""In the run's data folder."""

_VERSION = 2
"""Of what a scan finds and how a part holds it: another one makes every shard be scanned again."""

_META = b"raygrad.scan"


@dataclass(frozen=True)
class Task:
    """A shard to be scanned."""

    url: str
    name: str
    is_train: bool
    labels: LabelRule
    image: str
    unpack_to: str | None
    part: str | None = None
    """Where its part belongs; None where the rows stay in memory."""
    is_kept: bool = False
    """Whether the part is there."""


@dataclass(frozen=True)
class Scanned:
    """A shard that was scanned, without its rows where they are in a part."""

    place: str
    """Where the shard can be read: its URL, or what it was unpacked to."""
    scan: ShardScan
    """Its examples are left out."""
    hashes: NDArray[np.uint64]
    """Of the keys of its rows."""
    text_counts: dict[str, int]
    """How many of its rows have each text of a label."""
    rows: pa.Table | None = field(repr=False)
    """Columns of `PART_SCHEMA`; None where they are in a part."""


class Parts(Protocol):
    """The rows of all shards, by the shards' places in their order."""

    def tasks(self, tasks: Sequence[Task]) -> list[Task]:
        """Returns the tasks, told where their rows belong."""

    def keep(self, at: int, scanned: Scanned) -> None:
        """Takes a shard's rows."""

    def tables(self) -> Iterator[pa.Table]:
        """Yields the rows of one shard after the other, with the columns of `PART_SCHEMA`."""


class PartsInMemory:
    """Rows of shards in memory."""

    def __init__(self) -> None:
        self._rows: list[pa.Table] = []

    def tasks(self, tasks: Sequence[Task]) -> list[Task]:
        """Returns the tasks as they are."""
        return list(tasks)

    def keep(self, at: int, scanned: Scanned) -> None:
        """Takes a shard's rows."""
        assert scanned.rows is not None
        assert at == len(self._rows)
        self._rows.append(scanned.rows)

    def tables(self) -> Iterator[pa.Table]:
        """Yields the rows of one shard after the other."""
        yield from self._rows


class PartFiles:
    """Rows of shards in files of a run's data folder, each written where its shard is scanned.

    Args:
        data_url: The data folder.
        map_fn: Like `map`; reads parts in parallel when it is a parallel map.
    """

    def __init__(self, data_url: str, map_fn: Callable[..., Iterable[Any]] = map) -> None:
        self._folder, self._map_fn = files.join(data_url, FOLDER), map_fn
        self._urls: list[str] = []
        self._num_rows: list[int] = []

    def tasks(self, tasks: Sequence[Task]) -> list[Task]:
        """Returns the tasks, told where their parts belong and which of them are there."""
        # Web servers tell no versions, and would be asked for each file alone.
        urls = [one.url for one in tasks if files.is_local(one.url) or files.is_s3(one.url)]
        states = files.states(urls)
        there = set(files.list_files(self._folder, ".parquet"))
        found = []
        for task in tasks:
            size, version = states.get(task.url, (-1, ""))
            url = files.join(self._folder, _part_name(task, size, version))
            found.append(replace(task, part=url, is_kept=bool(version) and url in there))
        self._urls = [str(task.part) for task in found]
        return found

    def keep(self, at: int, scanned: Scanned) -> None:
        """Leaves the rows where they are."""
        assert scanned.rows is None, at
        self._num_rows.append(len(scanned.hashes))

    def tables(self) -> Iterator[pa.Table]:
        """Yields the rows of one shard after the other, some parts read ahead."""
        return tables_of(self._urls, self._num_rows, _rows_of, self._map_fn)

    def remove_others(self) -> None:
        """Removes parts of shards that are no longer in the data set, or are others now."""
        for url in set(files.list_files(self._folder, ".parquet")).difference(self._urls):
            files.remove(url)


def scanned(task: Task) -> Scanned:
    """Scans a shard and keeps its part, or reads the part that is there.

    A plain function of one argument, which every parallel map can take.

    Raises:
        ConfigError: The shard is not there, or cannot be read.
    """
    if task.is_kept and task.part is not None:
        kept = _kept(task.part)
        if kept is not None and (kept.place == task.url or files.exists(kept.place)):
            return kept
    place, scan = _scan(task)
    rows = part_rows(scan)
    found = Scanned(
        place,
        # Not a slice of no rows: it would keep the buffers of them all.
        replace(scan, examples=PART_SCHEMA.empty_table()),
        rows["key_hash"].to_numpy(),
        text_counts(rows),
        rows,
    )
    if task.part is None:
        return found
    _write(task.part, found)
    return replace(found, rows=None)


def _scan(task: Task) -> tuple[str, ShardScan]:
    """Returns where a shard can be read, and what it holds."""
    try:
        scan = scan_shard(task.url, task.labels, task.image)
        if not scan.compression or task.unpack_to is None:
            return task.url, scan
        place = _unpacked(task)
        unpack(task.url, scan.compression, place)
        return place, scan_shard(place, task.labels, task.image)
    except FileNotFoundError as error:
        raise ConfigError(
            f"shards must be there, got nothing at {task.url}. Check the path and its range."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"shards must be files that can be read, got {error}, in {task.url}. "
            "Check the path and its rights."
        ) from error


def _unpacked(task: Task) -> str:
    return "" if task.unpack_to is None else files.join(task.unpack_to, f"{task.name}.tar")


def _part_name(task: Task, size: int, version: str) -> str:
    depends_on = [
        _VERSION, task.url, size, version, task.labels.text, task.image, _unpacked(task),
    ]  # fmt: skip
    name = hashlib.blake2b(json.dumps(depends_on).encode(), digest_size=16).hexdigest()
    return f"part-{name}.parquet"


def _write(url: str, found: Scanned) -> None:
    scan = found.scan
    said = {
        "place": found.place,
        "rejects": scan.rejects,
        "num_bytes": scan.num_bytes,
        "digest": scan.digest,
        "damage": scan.damage,
        "compression": scan.compression,
        "hidden": scan.hidden,
    }
    assert found.rows is not None
    sink = pa.BufferOutputStream()
    pq.write_table(found.rows.replace_schema_metadata({_META: json.dumps(said)}), sink)
    files.write_bytes(url, sink.getvalue().to_pybytes())


def _kept(url: str) -> Scanned | None:
    """Reads a part without its keys; None where it is no part, and the shard is scanned again."""
    try:
        rows = _read(url, ["key_hash", "text"])
    except (pa.ArrowInvalid, FileNotFoundError):
        return None
    if _META not in (rows.schema.metadata or {}):
        return None
    said = json.loads(rows.schema.metadata[_META])
    place = said.pop("place")
    said["rejects"] = [(key, reason) for key, reason in said["rejects"]]
    said["hidden"] = tuple(said["hidden"])
    scan = ShardScan(PART_SCHEMA.empty_table(), **said)
    return Scanned(place, scan, rows["key_hash"].to_numpy(), text_counts(rows), None)


def _rows_of(url: str) -> pa.Table:
    try:
        return _read(url).cast(PART_SCHEMA)
    except FileNotFoundError as error:  # it was written a moment ago, where the shard was scanned
        raise ConfigError(
            f"the run's folder must be the same on all nodes, got no {url} here, which one of them "
            "wrote. Name a --run on storage that all of them see, such as s3://."
        ) from error


def _read(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a part; `pq.read_table` would look for a data set of many files first."""
    # Whole: a part has a shard's rows, and on S3 every piece of it would be a request.
    stream = pa.BufferReader(files.read_bytes(url))
    return pq.ParquetFile(stream).read(columns=columns, use_threads=False)
