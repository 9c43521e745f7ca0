"""The index shard by shard: a scoring actor needs one shard's rows, never the whole data set's."""

import bisect
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.data.index import Index, read_shard_table
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.damage import whole_parquet

_DIGEST_BYTES = 16


class ShardRows:
    """An index on disk or S3, read a row group at a time.

    Args:
        data_url: The folder that `write_index` wrote.

    Raises:
        ConfigError: There is no index.
    """

    def __init__(self, data_url: str) -> None:
        url = files.join(data_url, "index.parquet")
        if not files.exists(url):
            raise ConfigError(f"an index must exist, got none in {data_url}. Do: raygrad prepare.")
        with whole_parquet(url):
            self._file = pq.ParquetFile(files.open_input(url))
        self._bounds = _group_bounds(self._file)
        self._shards = read_shard_table(data_url)
        self._by_name = pc.array_sort_indices(self._shards["name"].combine_chunks())

    def load(self, shard: str) -> Index:
        """Returns an index of this shard alone; its rows are in the whole index's order."""
        tables = [
            group.table.slice(start, stop - start)
            for at, bounds in enumerate(self._bounds)
            if bounds is None or bounds[0] <= shard <= bounds[1]
            for group in (_row_group(self._file, at),)
            for start, stop in group.places.get(shard, ())
        ]
        rows = pa.concat_tables(tables) if tables else self._file.schema_arrow.empty_table()
        return Index(rows, self._shard(shard), pa.table({}))

    def _shard(self, shard: str) -> pa.Table:
        """Returns the row of the table of shards, found without a look at all of them."""
        names = self._shards["name"]
        place = bisect.bisect_left(
            range(len(names)), shard, key=lambda at: names[self._by_name[at].as_py()].as_py()
        )
        numbers = self._by_name[place : place + 1]
        found = self._shards.take(numbers)
        return found if found["name"].to_pylist() == [shard] else found.slice(0, 0)


@dataclass(frozen=True)
class _Group:
    """A row group in memory."""

    table: pa.Table
    places: dict[str, list[tuple[int, int]]]
    """From where to where each shard's rows are."""


def _group_bounds(file: pq.ParquetFile) -> list[tuple[str, str] | None]:
    """Returns the first and last name of a shard in each row group, None where it is not said."""
    column = file.schema_arrow.get_field_index("shard")
    stated = (
        file.metadata.row_group(at).column(column).statistics for at in range(file.num_row_groups)
    )
    return [
        (found.min, found.max) if found is not None and found.has_min_max else None
        for found in stated
    ]


@functools.lru_cache(maxsize=2)
def _row_group(file: pq.ParquetFile, at: int) -> _Group:
    # Shards that follow each other are in the same group, which is decoded once.
    table = file.read_row_group(at)
    places: dict[str, list[tuple[int, int]]] = {}
    for name, start, stop in _runs(table):
        places.setdefault(name, []).append((start, stop))
    return _Group(table, places)


def _runs(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    """Yields each shard's name, and from where to where its rows are."""
    codes = table["shard"].combine_chunks().dictionary_encode()
    numbers = codes.indices.to_numpy()
    cuts = np.flatnonzero(np.diff(numbers)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
        if start != stop:
            yield codes.dictionary[int(numbers[start])].as_py(), int(start), int(stop)


def shard_facts(data_url: str, split: str) -> dict[str, tuple[int, str]]:
    """Returns, for each shard with examples of a split, their number and a digest of them.

    Reads the index a row group at a time: what it holds grows with the shards, not the examples.
    """
    facts: dict[str, tuple[int, str]] = {}
    for shard, tables in _by_shard(data_url, split):
        assert shard not in facts, f"rows of {shard} are not neighbours in the index"
        facts[shard] = (sum(table.num_rows for table in tables), rows_digest(tables))
    return facts


def rows_digest(tables: list[pa.Table]) -> str:
    """Returns a hash of rows of the index: keys, places and labels, however they are cut."""
    hashers = []
    for name in ("offset", "size", "label"):
        hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for table in tables:
            hasher.update(table[name].to_numpy().tobytes())
        hashers.append(hasher.hexdigest())
    keys = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for table in tables:
        keys.update(table["key_hash"].to_numpy().tobytes())
    return hashlib.blake2b(
        "".join([*hashers, keys.hexdigest()]).encode(), digest_size=_DIGEST_BYTES
    ).hexdigest()


def _by_shard(data_url: str, split: str) -> Iterator[tuple[str, list[pa.Table]]]:
    """Yields the rows of each shard; rows of a shard are neighbours in the index."""
    columns = ["shard", "split", "key_hash", "offset", "size", "label"]
    current = ""
    tables: list[pa.Table] = []
    with files.open_input(files.join(data_url, "index.parquet")) as stream:
        file = pq.ParquetFile(stream)
        for at in range(file.num_row_groups):
            group = file.read_row_group(at, columns=columns)
            group = group.filter(pc.equal(group["split"], split))
            for name, start, stop in _runs(group):
                if name != current and tables:
                    yield current, tables
                    tables = []
                current = name
                tables.append(group.slice(start, stop - start))
    if tables:
        yield current, tables
