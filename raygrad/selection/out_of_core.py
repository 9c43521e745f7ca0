"""Drawing a subset from Parquet parts of any size, in memory that does not grow with them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from raygrad.selection.drawing import draw_order, within_quotas
from raygrad.selection.keyed_random import key_hashes, random_bits
from raygrad.selection.methods import SCORE, Plan, Weights
from raygrad.selection.named import row_method
from raygrad.selection.order import Bits, Cut, cut
from raygrad.selection.quotas import Budget, ClassBalanced
from raygrad.selection.rows import Batch, Missing, Places, Rows, View

SCHEMA = pa.schema(
    [("key", pa.string()), ("shard", pa.string()), ("weight", pa.float64()), ("rank", pa.int64())]
)
"""The columns of a subset, one row a drawn example, in draw order."""
SORTED_ROWS = 2**20
"""About how many drawn rows are put in order at once."""
_EVERY = 64
"""One row in so many says where ranges of drawn rows end."""


@dataclass(frozen=True)
class RowGroup:
    """The rows of one row group of a part; each column is read when it is asked for."""

    path: str
    filesystem: pafs.FileSystem
    metadata: pq.FileMetaData
    group: int
    names: dict[str, str]
    """The column in the file of each column the method reads."""
    number: int
    """Of the part, among all."""
    spool: str
    """A local folder for what is computed once."""

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
        elif 4 * len(at) < len(self):
            return key_hashes(self.keys(at))
        else:
            found = self._spooled()
        return found if len(at) == len(found) else found[at]

    def _spooled(self) -> NDArray[np.uint64]:
        """Returns the hashes of all keys, computed once and kept in a file of 8 bytes a row."""
        path = Path(self.spool) / f"{self.number}-{self.group}.npy"
        if not path.exists():
            hashes = key_hashes(self.read("key").to_pylist())
            whole = path.with_suffix(".part")
            with whole.open("wb") as stream:
                np.save(stream, hashes)
            whole.rename(path)
            return hashes
        return np.load(path)


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
    chosen = row_method(method, **options)
    filesystem = filesystem or pafs.LocalFileSystem()
    names = {name: score_column if name == SCORE else name for name in chosen.columns}
    needed = ["key", "shard", *names.values(), *(["label"] if class_balanced else [])]
    with tempfile.TemporaryDirectory(prefix="raygrad-select-", dir=scratch) as folder:
        groups = _all_row_groups(parts, filesystem, names, needed, folder)
        by = "label" if class_balanced else None
        rows = Rows(groups, chosen.columns, missing=missing, by_class=by, num_threads=num_threads)
        total = budget(rows.total) if callable(budget) else budget
        plan = chosen.plan(rows, Budget(total, class_balanced), seed)
        out = sink_filesystem or filesystem
        written = _draw(rows, plan, total, folder, out, sink, metadata)
    assert written == total, f"{written} rows were drawn, not {total}"
    return Drawn(written, rows.total, rows.num_missing)


def _draw(
    rows: Rows,
    plan: Plan,
    total: int,
    folder: str,
    filesystem: pafs.FileSystem,
    sink: str,
    metadata: dict[bytes, bytes] | None,
) -> int:
    """Finds where the drawn rows end, gathers them by ranges and writes them; returns how many."""
    last = cut(rows, plan.ordering, plan.quotas, plan.counts)
    with _Ranges(folder, _splitters(rows, last, total)) as ranges:
        weights = plan.weigher(rows) if plan.weigher is not None else None
        for pieces in rows.map(lambda view: _drawn_rows(view, last, weights, ranges.splitters)):
            for piece, table in pieces:
                ranges.add(piece, table)
        return _write(ranges, plan, filesystem, sink, SCHEMA.with_metadata(metadata))


def _all_row_groups(
    parts: Sequence[str],
    filesystem: pafs.FileSystem,
    names: dict[str, str],
    needed: Sequence[str],
    spool: str,
) -> list[Batch]:
    found = [_row_groups(p, n, filesystem, names, needed, spool) for n, p in enumerate(parts)]
    return [group for of_part in found for group in of_part]


def _row_groups(
    part: str,
    number: int,
    filesystem: pafs.FileSystem,
    names: dict[str, str],
    needed: Sequence[str],
    spool: str,
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
    return [RowGroup(part, filesystem, metadata, group, names, number, spool) for group in groups]


def _bits(last: Cut, view: View, at: Places) -> Bits:
    """Returns what orders rows first: bits of their number, or of their key where there is none."""
    ordering = last.ordering
    return ordering.tie_bits(view, at) if ordering.values is None else ordering.first_bits(view, at)


def _splitters(rows: Rows, last: Cut, total: int) -> tuple[Bits, Bits]:
    """Returns composites that cut the drawn rows into ranges of about SORTED_ROWS, ascending."""
    if total <= SORTED_ROWS:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)

    def sample(view: View) -> Bits:
        return _bits(last, view, last.admitted(view))

    def whole_sample(view: View) -> tuple[Bits, Bits]:
        at = last.admitted(view)
        return _bits(last, view, at), last.ordering.tie_bits(view, at)

    number = -(-total // SORTED_ROWS)
    first = np.sort(np.concatenate(list(rows.map(sample, _EVERY))))
    at = (np.arange(1, number) * len(first)) // number
    found = first[at]
    if len(np.unique(found)) == len(found):
        return found, np.zeros(len(found), np.uint64)
    # One number fills whole ranges: hashes tell its rows apart.
    first, ties = (
        np.concatenate(bits) for bits in zip(*rows.map(whole_sample, _EVERY), strict=True)
    )
    order = np.lexsort((ties, first))
    at = order[(np.arange(1, number) * len(order)) // number]
    return first[at], ties[at]


def _drawn_rows(
    view: View, last: Cut, weights: Weights | None, splitters: tuple[Bits, Bits]
) -> list[tuple[int, pa.RecordBatch]]:
    """Returns the drawn rows of a view, those of each range together."""
    at = last.admitted(view)
    if not at.size:
        return []
    batch = view.batch
    assert isinstance(batch, RowGroup)
    first = _bits(last, view, at)
    piece = _range_of(first, lambda of: last.ordering.tie_bits(view, at[of]), splitters)
    order = np.argsort(piece.astype(np.uint16), kind="stable") if len(splitters[0]) else slice(None)
    at, first, piece = at[order], first[order], piece[order]
    shard = batch.read("shard").take(pa.array(at))
    shard = shard if pa.types.is_dictionary(shard.type) else shard.dictionary_encode()
    columns = {
        "first": pa.array(first),
        "group": pa.array(last.ordering.groups(view)[at].astype(np.int32)),
        "key": batch.read("key").take(pa.array(at)).cast(pa.string()),
        "shard": shard.cast(pa.dictionary(pa.int32(), pa.string())),
    }
    if weights is not None:
        columns["weight"] = pa.array(weights(view, at))
    found = pa.record_batch(columns)
    starts = np.flatnonzero(np.r_[True, piece[1:] != piece[:-1]])
    ends = np.r_[starts[1:], len(piece)]
    return [
        (int(piece[start]), found.slice(start, end - start))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _range_of(
    first: Bits, ties: Callable[[Places], Bits], splitters: tuple[Bits, Bits]
) -> NDArray[np.int64]:
    """Returns how many splitters are at most each row's composite."""
    found = np.searchsorted(splitters[0], first, side="right").astype(np.int64)
    if not splitters[1].any():
        return found
    lowest = np.searchsorted(splitters[0], first, side="left")
    level = np.flatnonzero(found != lowest)  # Rows that share a splitter's first bits.
    for row, tie in zip(level.tolist(), ties(level), strict=True):
        among = splitters[1][lowest[row] : found[row]]
        found[row] = lowest[row] + np.searchsorted(among, tie, side="right")
    return found


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

    def tables(self) -> Iterator[pa.Table]:
        """Yields the rows of each range, in order of the ranges."""
        self.close()
        for path in self.paths:
            if Path(path).exists():
                with pa.memory_map(path) as stream, pa.ipc.open_stream(stream) as reader:
                    yield reader.read_all()


def _write(
    ranges: _Ranges, plan: Plan, filesystem: pafs.FileSystem, sink: str, schema: pa.Schema
) -> int:
    """Writes the ranges in draw order, the next being put in order; returns how many rows."""
    seed, by_key = plan.ordering.seed, plan.ordering.values is None
    written, left = 0, plan.quotas.copy()

    def ordered(table: pa.Table) -> pa.Table:
        first, keys = table["first"].to_numpy(), table["key"]

        def keys_at(at: Places) -> Sequence[str]:
            return keys.take(pa.array(at)).to_pylist()

        def ties_at(at: Places) -> Bits:
            return first[at] if by_key else random_bits(seed, key_hashes(keys_at(at)))

        return table.drop(["first"]).take(pa.array(draw_order(first, ties_at, keys_at)))

    with (
        filesystem.open_output_stream(sink) as stream,
        pq.ParquetWriter(
            stream, schema, use_dictionary=["shard", "weight"], compression="snappy",
            column_encoding={"rank": "DELTA_BINARY_PACKED"},
        ) as writer,
    ):  # fmt: skip
        for rows in _one_ahead(ordered, ranges.tables()):
            groups = rows["group"].to_numpy()
            within = within_quotas(groups, left)
            if not within.all():
                rows, groups = rows.filter(pa.array(within)), groups[within]
            left -= np.bincount(groups, minlength=len(left))
            columns = {
                "key": rows["key"],
                "shard": pc.cast(rows["shard"], pa.string()),
                "weight": rows["weight"] if plan.weigher else np.ones(len(groups)),
                "rank": np.arange(written, written + len(groups)),
            }
            writer.write_table(pa.table(columns, schema=schema))
            written += len(groups)
    return written


def _one_ahead(step: Callable[[pa.Table], pa.Table], tables: Iterator[pa.Table]) -> Any:
    """Yields the step's results, the next already under way in another thread."""
    with ThreadPoolExecutor(1) as pool:
        before = None
        for table in tables:
            following = pool.submit(step, table)
            if before is not None:
                yield before.result()
            before = following
        if before is not None:
            yield before.result()
