"""Drawing a subset from Parquet parts of any size, in memory that does not grow with them."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raygrad.errors import ConfigError
from raygrad.selection.drawing import check_method, draw_order, within_quotas
from raygrad.selection.keyed_random import key_hashes
from raygrad.selection.methods import SCORE, Plan
from raygrad.selection.order import Bits, Cut, cut
from raygrad.selection.quotas import Budget, ClassBalanced
from raygrad.selection.rows import Batch, Missing, Places, Rows, View

SCHEMA = pa.schema(
    [("key", pa.string()), ("shard", pa.string()), ("weight", pa.float64()), ("rank", pa.int64())]
)
"""The columns of a subset, one row a drawn example, in draw order."""
SORTED_ROWS = 2**20
"""About how many drawn rows are put in order at once."""


@dataclass(frozen=True)
class RowGroup:
    """The rows of one row group of a part; each column is read when it is asked for."""

    path: str
    filesystem: pafs.FileSystem
    metadata: pq.FileMetaData
    group: int
    names: dict[str, str]
    """The column in the file of each column the method reads."""

    def __len__(self) -> int:
        return self.metadata.row_group(self.group).num_rows

    def read(self, name: str) -> pa.Array:
        """Returns a column as one Arrow array."""
        with self.filesystem.open_input_file(self.path) as stream:
            file = pq.ParquetFile(stream, metadata=self.metadata)
            column = file.read_row_group(self.group, columns=[name], use_threads=False).column(0)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def column(self, name: str) -> NDArray[Any]:
        """Returns a column of numbers or labels; a null is NaN."""
        return self.read(self.names.get(name, name)).to_numpy(zero_copy_only=False)

    def keys(self, at: Places) -> Sequence[str]:
        """Returns the keys at these places."""
        return self.read("key").take(pa.array(at)).to_pylist()

    def hashes(self, at: Places) -> NDArray[np.uint64]:
        """Returns hashes: the column key_hash where the part has it, else computed from keys."""
        if not at.size:
            return np.empty(0, np.uint64)
        if "key_hash" in self.metadata.schema.names:
            found = self.read("key_hash").to_numpy()
            return found if len(at) == len(found) else found[at]
        return key_hashes(self.keys(at))


@dataclass(frozen=True)
class Drawn:
    """What was drawn into a file."""

    num_rows: int
    num_candidates: int
    """Rows that took part: those of all parts but what `missing="drop"` left out."""
    num_missing: int


def draw_parts(
    method: str,
    parts: Sequence[str],
    sink: str,
    budget: int | Callable[[int], int],
    *,
    score_column: str = SCORE,
    seed: int = 0,
    class_balanced: ClassBalanced = False,
    missing: Missing = "error",
    filesystem: pafs.FileSystem | None = None,
    sink_filesystem: pafs.FileSystem | None = None,
    scratch: str | None = None,
    num_threads: int = 2,
    metadata: dict[bytes, bytes] | None = None,
    **options: Any,
) -> Drawn:
    """Draws from score parts and writes the subset: what `draw` would draw from all rows at once.

    Passes over the columns that the method reads find where the drawn rows end in each group; one
    pass reads keys and shards, and keeps the drawn ones. Drawn rows are put in order a range of
    ranks at a time, through files in `scratch`. Memory is bounded by some row groups a thread,
    histograms of 16 MiB, 2**21 candidates, and about 2**20 drawn rows; it does not grow with the
    number of rows (but for 16 bytes in 64 drawn rows and the parts' footers).

    Args:
        method: A key of `METHODS`.
        parts: Paths of Parquet files with columns key, shard, the score, label for
            `class_balanced`, and key_hash if draws that need every row's hash are to be quick.
        sink: Where the subset is written, with the columns of `SCHEMA`, in draw order.
        budget: How many to draw, or a function of how many rows take part.
        score_column: The column that a method of one score reads.
        seed: As in `draw`.
        class_balanced: As in `draw`.
        missing: As in `draw`; a null counts as NaN.
        filesystem: Where the parts are; by default the local one.
        sink_filesystem: Where the subset goes; by default that of the parts.
        scratch: A local folder for drawn rows on their way; by default the system's.
        num_threads: Row groups worked on at a time.
        metadata: The subset file's metadata.
        **options: As in `draw`.

    Raises:
        ConfigError: As in `draw`, or a part lacks a column.
        DataError: As in `draw`.
    """
    chosen = check_method(method, **options)
    filesystem = filesystem or pafs.LocalFileSystem()
    names = {name: score_column if name == SCORE else name for name in chosen.columns}
    needed = ["key", "shard", *names.values(), *(["label"] if class_balanced else [])]
    batches = [group for part in parts for group in _row_groups(part, filesystem, names, needed)]
    rows = Rows(
        batches,
        chosen.columns,
        missing=missing,
        by_class="label" if class_balanced else None,
        num_threads=num_threads,
    )
    total = budget(rows.total) if callable(budget) else budget
    plan = chosen.plan(rows, Budget(total, class_balanced), seed)
    last = cut(rows, plan.ordering, plan.quotas, plan.counts)
    with (
        tempfile.TemporaryDirectory(prefix="raygrad-select-", dir=scratch) as folder,
        _Ranges(folder, _splitters(rows, last, total)) as ranges,
    ):
        for pieces in rows.map(lambda view: _drawn_rows(view, last, plan, ranges.splitters)):
            for piece, table in pieces:
                ranges.add(piece, table)
        written = _write(
            ranges, plan, (sink_filesystem or filesystem), sink, SCHEMA.with_metadata(metadata)
        )
    assert written == total, f"{written} rows were drawn, not {total}"
    return Drawn(written, rows.total, rows.num_missing)


def _row_groups(
    part: str, filesystem: pafs.FileSystem, names: dict[str, str], needed: Sequence[str]
) -> list[Batch]:
    with filesystem.open_input_file(part) as stream:
        metadata = pq.ParquetFile(stream).metadata
    absent = [name for name in needed if name not in metadata.schema.names]
    if absent:
        raise ConfigError(
            f"a part must have the column {absent[0]}, got {', '.join(metadata.schema.names)} "
            f"in {part}. Score with --columns."
        )
    groups = range(metadata.num_row_groups)
    return [RowGroup(part, filesystem, metadata, group, names) for group in groups]


def _splitters(rows: Rows, last: Cut, total: int) -> tuple[Bits, Bits]:
    """Returns composites that cut the drawn rows into ranges of about SORTED_ROWS, ascending."""
    if total <= SORTED_ROWS:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)

    def sample(view: View) -> tuple[Bits, Bits]:
        at = last.admitted(view)[::64]
        return last.ordering.first_bits(view)[at], last.ordering.tie_bits(view, at)

    first, ties = (np.concatenate(bits) for bits in zip(*rows.map(sample), strict=True))
    order = np.lexsort((ties, first))
    number = -(-total // SORTED_ROWS)
    at = order[(np.arange(1, number) * len(order)) // number]
    return first[at], ties[at]


def _drawn_rows(
    view: View, last: Cut, plan: Plan, splitters: tuple[Bits, Bits]
) -> list[tuple[int, pa.RecordBatch]]:
    """Returns the drawn rows of a view, those of each range together."""
    at = last.admitted(view)
    if not at.size:
        return []
    batch = view.batch
    assert isinstance(batch, RowGroup)
    first = last.ordering.first_bits(view)[at]
    ties = last.ordering.tie_bits(view, at)
    weights = np.ones(len(at)) if plan.weights is None else plan.weights(view, at)
    shard = batch.read("shard").take(pa.array(at))
    shard = shard.dictionary_decode() if pa.types.is_dictionary(shard.type) else shard
    found = pa.record_batch(
        {
            "first": first,
            "ties": ties,
            "group": last.ordering.groups(view)[at],
            "key": batch.read("key").take(pa.array(at)).cast(pa.string()),
            "shard": shard.cast(pa.string()).dictionary_encode(),
            "weight": weights,
        }
    )
    piece = _range_of(first, ties, splitters)
    order = np.argsort(piece, kind="stable")
    found, piece = found.take(pa.array(order)), piece[order]
    starts = np.flatnonzero(np.r_[True, piece[1:] != piece[:-1]])
    ends = np.r_[starts[1:], len(piece)]
    return [
        (int(piece[start]), found.slice(start, end - start))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _range_of(first: Bits, ties: Bits, splitters: tuple[Bits, Bits]) -> NDArray[np.int64]:
    """Returns how many splitters are at most each row's composite."""
    found = np.searchsorted(splitters[0], first, side="left")
    upto = np.searchsorted(splitters[0], first, side="right")
    for at in np.flatnonzero(found != upto).tolist():  # Rows that share a splitter's first bits.
        found[at] += np.searchsorted(splitters[1][found[at] : upto[at]], ties[at], side="right")
    return found.astype(np.int64)


class _Ranges:
    """Files of drawn rows, one a range of ranks."""

    def __init__(self, folder: str, splitters: tuple[Bits, Bits]) -> None:
        self.splitters = splitters
        paths = [Path(folder) / f"{piece}.arrow" for piece in range(len(splitters[0]) + 1)]
        self.paths = [str(path) for path in paths]
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}

    def __enter__(self) -> "_Ranges":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, piece: int, rows: pa.RecordBatch) -> None:
        if piece not in self._writers:
            self._writers[piece] = pa.ipc.new_stream(self.paths[piece], rows.schema)
        self._writers[piece].write_batch(rows)

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def tables(self) -> "Any":
        """Yields the rows of each range, in order of the ranges."""
        self.close()
        for path in self.paths:
            if Path(path).exists():
                with pa.memory_map(path) as stream, pa.ipc.open_stream(stream) as reader:
                    yield reader.read_all()


def _write(
    ranges: _Ranges, plan: Plan, filesystem: pafs.FileSystem, sink: str, schema: pa.Schema
) -> int:
    """Writes the ranges in draw order; returns how many rows."""
    written, left = 0, plan.quotas.copy()
    with filesystem.open_output_stream(sink) as stream, pq.ParquetWriter(stream, schema) as writer:
        for table in ranges.tables():
            first, ties, groups = (table[name].to_numpy() for name in ("first", "ties", "group"))
            keys = table["key"]
            order = draw_order(first, ties, lambda at, keys=keys: keys.take(at).to_pylist())
            order = order[within_quotas(groups[order], left)]
            left -= np.bincount(groups[order], minlength=len(left))
            rows = table.select(["key", "shard", "weight"]).take(pa.array(order))
            rows = rows.set_column(1, "shard", pc.cast(rows["shard"], pa.string()))
            rank = pa.array(np.arange(written, written + len(order)))
            writer.write_table(rows.append_column("rank", rank).cast(schema))
            written += len(order)
    return written
