"""The index: one row an example, and tables of the shards and of what could not be used."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.data.columns import columns_digest
from raygrad.data.index_building import Head, IndexOptions, build, shard_names
from raygrad.data.index_parts import PartFiles, PartsInMemory
from raygrad.data.index_rows import INDEX_SCHEMA, SHARD_SCHEMA
from raygrad.data.small_tables import SmallTables
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.damage import whole_parquet

__all__ = [
    "DIGESTED",
    "Index",
    "build_index",
    "build_index_files",
    "read_index",
    "read_shard_table",
    "read_table",
    "shard_names",
    "write_index",
    "write_table",
]

DIGESTED = ("key", "shard", "offset", "size", "label", "split")
"""The columns that an index's digest is of."""

_CLASSES = b"raygrad.classes"
_ROW_GROUP = 2**16


@dataclass(frozen=True)
class Index:
    """Every example of a data set, its shards, and what could not be used."""

    examples: pa.Table
    """Columns of `INDEX_SCHEMA`; offset and size are the image's bytes within the shard."""
    shards: pa.Table
    """Columns of `SHARD_SCHEMA`; the url is absolute, and the source what was named: the same, or
    the compressed tar that the url's was unpacked from."""
    rejects: pa.Table
    """Columns of `REJECT_SCHEMA`; damage of a whole shard has an empty key."""
    classes: tuple[str, ...] = ()
    """The name of each class, by label."""
    notes: tuple[str, ...] = ()
    """What the user should know of the data: a line each."""

    @property
    def digest(self) -> str:
        """A hash of every example's key, place, label and split."""
        return columns_digest(self.examples, DIGESTED)

    def counts(self, split: str) -> dict[str, int]:
        """Returns how many examples of a split each shard holds; shards with none are left out."""
        shards = self.examples.filter(pc.equal(self.examples["split"], split))["shard"]
        return {row["values"]: row["counts"] for row in shards.value_counts().to_pylist()}

    def rows(self, split: str, shard: str | None = None) -> pa.Table:
        """Returns the examples of a split, of all shards or of one."""
        chosen = pc.equal(self.examples["split"], split)
        if shard is not None:
            chosen = pc.and_(chosen, pc.equal(self.examples["shard"], shard))
        return self.examples.filter(chosen)

    def shard_url(self, name: str) -> str:
        """Returns where a shard is."""
        return self._shard(name)["url"]

    def shard_bytes(self, name: str) -> int:
        """Returns the size that a shard had when it was indexed."""
        return self._shard(name)["num_bytes"]

    def _shard(self, name: str) -> dict[str, Any]:
        at = pc.index(self.shards["name"], name).as_py()
        assert at >= 0, name
        return self.shards.slice(at, 1).to_pylist()[0]


def build_index(
    train_urls: Sequence[str], test_urls: Sequence[str], *, val_fraction: float, **options: Any
) -> Index:
    """Reads the headers and labels of every shard; no image is decoded.

    Validation is taken from the training examples by a hash of (split_seed, key), so that it does
    not depend on shards or order, and no tar is rewritten.

    What cannot be used becomes a row of rejects. A damaged shard keeps the examples before the
    damage; what it lacks, to its expected or to any shard's largest count, counts as rejected.

    Args:
        train_urls: Shards of training examples.
        test_urls: Shards of test examples.
        val_fraction: The share of training examples held out.
        options: More of `IndexOptions`.

    Raises:
        DataError: More is rejected than accepted.
        ConfigError: There is no shard, one is not there, or two of them cannot be told apart.
    """
    rows = _RowsInMemory([])
    wanted = IndexOptions(val_fraction, **options)
    head = build(train_urls, test_urls, wanted, PartsInMemory(), rows)
    examples = pa.concat_tables([INDEX_SCHEMA.empty_table(), *rows.tables])
    return Index(examples, head.shards, head.rejects, head.classes, head.notes)


def build_index_files(
    data_url: str,
    train_urls: Sequence[str],
    test_urls: Sequence[str],
    options: IndexOptions,
    finish: Callable[[Head], Head],
) -> Head:
    """Builds the index of `build_index` in a run's data folder, and never has it in memory.

    Shards whose parts are there, of a start that was stopped or of a smaller data set, are not
    scanned again.

    Args:
        data_url: The data folder; what is written is what `write_index` writes.
        train_urls: Shards of training examples.
        test_urls: Shards of test examples.
        options: How it is built.
        finish: Changes the index's head, or raises, before anything of the index is there.

    Raises:
        DataError: More is rejected than accepted.
        ConfigError: There is no shard, one is not there, or two of them cannot be told apart.
    """
    parts = PartFiles(data_url, options.map_fn)
    with files.open_output(files.join(data_url, "index.parquet")) as stream:
        with pq.ParquetWriter(stream, INDEX_SCHEMA) as writer:
            rows = _RowGroups(writer)
            head = finish(build(train_urls, test_urls, options, parts, rows))
            rows.flush()
        _write_shards(data_url, head.shards, head.classes)
        write_table(files.join(data_url, "rejects.parquet"), head.rejects)
    parts.remove_others()
    return head


@dataclass
class _RowsInMemory:
    tables: list[pa.Table]

    def write_table(self, table: pa.Table) -> None:
        """Takes a shard's rows."""
        self.tables.append(table)


class _RowGroups:
    """Writes rows into a Parquet file, in groups of `_ROW_GROUP`, whatever they come in."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting = SmallTables()

    def write_table(self, table: pa.Table) -> None:
        """Takes a shard's rows."""
        self._waiting.add(table)
        if self._waiting.num_rows >= _ROW_GROUP:
            rows = self._waiting.take()
            whole = rows.num_rows - rows.num_rows % _ROW_GROUP
            self._writer.write_table(rows.slice(0, whole), row_group_size=_ROW_GROUP)
            self._waiting.add(rows.slice(whole))

    def flush(self) -> None:
        """Writes what is left."""
        if self._waiting.num_rows:
            self._writer.write_table(self._waiting.take())


def write_index(data_url: str, index: Index) -> None:
    """Writes index.parquet, shards.parquet and rejects.parquet into a run's data folder.

    Shards inside the folder are stored by relative URL, so that a moved run still opens.
    """
    _write_shards(data_url, index.shards, index.classes)
    write_table(files.join(data_url, "rejects.parquet"), index.rejects)
    write_table(files.join(data_url, "index.parquet"), index.examples)


def _write_shards(data_url: str, shards: pa.Table, classes: Sequence[str]) -> None:
    inside = data_url.rstrip("/") + "/"
    for at, column in enumerate(SHARD_SCHEMA.names):
        if column in ("url", "source"):
            urls = [url.removeprefix(inside) for url in shards[column].to_pylist()]
            shards = shards.set_column(at, column, pa.array(urls, pa.string()))
    shards = shards.replace_schema_metadata({_CLASSES: json.dumps(classes)})
    write_table(files.join(data_url, "shards.parquet"), shards)


def read_index(data_url: str) -> Index:
    """Reads what `write_index` wrote.

    Raises:
        ConfigError: There is no index.
    """
    if not files.exists(files.join(data_url, "index.parquet")):
        raise ConfigError(f"an index must exist, got none in {data_url}. Do: raygrad prepare.")
    index, rejects = (
        read_table(files.join(data_url, f"{name}.parquet")) for name in ("index", "rejects")
    )
    shards = read_shard_table(data_url)
    classes = tuple(json.loads((shards.schema.metadata or {}).get(_CLASSES, b"[]")))
    return Index(index, shards.replace_schema_metadata(None), rejects, classes)


def read_shard_table(data_url: str) -> pa.Table:
    """Returns the table of shards that `write_index` wrote, its URLs absolute."""
    shards = read_table(files.join(data_url, "shards.parquet"))
    if "source" not in shards.column_names:  # of an index before compressed tars were read
        shards = shards.append_column("source", shards["url"])
    for at, column in enumerate(SHARD_SCHEMA.names):
        if column in ("url", "source"):
            urls = [
                url if files.is_absolute(url) else files.join(data_url, url)
                for url in shards[column].to_pylist()
            ]
            shards = shards.set_column(at, column, pa.array(urls, pa.string()))
    return shards


def write_table(url: str, table: pa.Table) -> None:
    """Writes a table as one Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    # Groups of rows that can be read alone: a scoring actor reads its shard's, not all.
    pq.write_table(table, sink, row_group_size=_ROW_GROUP)
    files.write_bytes(url, sink.getvalue().to_pybytes())


def read_table(url: str) -> pa.Table:
    """Reads one Parquet file.

    Raises:
        DataError: It is damaged.
    """
    with whole_parquet(url), files.open_input(url) as stream:
        return pq.read_table(stream)
