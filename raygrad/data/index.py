"""The index: one row an example, and tables of the shards and of what could not be used."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.data.index_rows import (
    Rejects,
    class_names,
    class_numbers,
    numbered_rows,
    with_validation,
    without_repeats,
)
from raygrad.data.shard_scan import LabelRule, ShardScan, scan_shard
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.manifest import digest

SHARD_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("url", pa.string()),
        ("num_examples", pa.int64()),
        ("num_bytes", pa.int64()),
        ("digest", pa.string()),
    ]
)
MAX_REJECT_SHARE = 0.01
_CLASSES = b"raygrad.classes"
_ROW_GROUP = 2**16


@dataclass(frozen=True)
class Index:
    """Every example of a data set, its shards, and what could not be used."""

    examples: pa.Table
    """Columns of `INDEX_SCHEMA`; offset and size are the image's bytes within the shard."""
    shards: pa.Table
    """Columns of `SHARD_SCHEMA`; the url is absolute."""
    rejects: pa.Table
    """Columns of `REJECT_SCHEMA`; damage of a whole shard has an empty key."""
    classes: tuple[str, ...] = ()
    """The name of each class, by label."""

    @property
    def digest(self) -> str:
        """A hash of every example's key, place, label and split."""
        names = ["key", "shard", "offset", "size", "label", "split"]
        return digest([self.examples[name].to_pylist() for name in names])

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
    train_urls: Sequence[str],
    test_urls: Sequence[str],
    *,
    val_fraction: float,
    split_seed: int = 0,
    labels: str = "cls",
    classes: Sequence[str] = (),
    expected_counts: Mapping[str, int] | None = None,
    max_reject_share: float = MAX_REJECT_SHARE,
    strict: bool = False,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> Index:
    """Reads the headers and labels of every shard; no image is decoded.

    Validation is taken from the training examples by a hash of (split_seed, key), so that it does
    not depend on shards or order, and no tar is rewritten.

    What cannot be used becomes a row of rejects with its reason. A damaged shard keeps the
    examples before the damage; what it lacks counts as rejected: to its expected count where that
    is known, to the largest count of any shard otherwise.

    Args:
        train_urls: Shards of training examples.
        test_urls: Shards of test examples.
        val_fraction: The share of training examples held out.
        split_seed: Changes which ones.
        labels: Where labels stand: ``cls``, ``json:FIELD`` or ``folder`` (of the key).
        classes: The name of each class, in the order of their numbers. By default numbers are
            taken as they are, and names by their sorted order over the training shards.
        expected_counts: The number of examples of shards, by URL, where it is known.
        max_reject_share: The share of rejects that is accepted, in [0, 1].
        strict: Accept none, and fail on the first.
        map_fn: Like `map`; reads shards in parallel when given a parallel map.

    Raises:
        DataError: More is rejected than accepted, or a shard cannot be read at all.
        ConfigError: There is no shard, or two of them cannot be told apart.
    """
    urls = [*train_urls, *test_urls]
    names = shard_names(urls)
    rule, rejects = LabelRule(labels), Rejects(strict)
    scans: dict[str, ShardScan] = {}
    tasks = [(url, rule) for url in urls]
    for name, scan in zip(names, map_fn(_scan, tasks), strict=True):
        rejects.add_scan(name, scan)
        scans[name] = scan
    train = names[: len(train_urls)]
    classes = tuple(classes) or class_names([scans[name] for name in train], rule)
    numbers = class_numbers(classes, rule)
    tables = [
        numbered_rows(name, scan, "train" if name in train else "test", numbers, rejects)
        for name, scan in scans.items()
    ]
    table = without_repeats(pa.concat_tables(tables), rejects)
    table = with_validation(table, val_fraction, split_seed)
    counts = Counter(table["shard"].to_pylist())
    expected = {n: (expected_counts or {}).get(url) for n, url in zip(names, urls, strict=True)}
    rejects.add_missing(scans, counts, expected)
    rejects.check_share(table.num_rows, max_reject_share)
    shards = [
        [*names],
        [*urls],
        [counts[name] for name in names],
        [scan.num_bytes for scan in scans.values()],
        [scan.digest for scan in scans.values()],
    ]
    return Index(table, pa.table(shards, schema=SHARD_SCHEMA), rejects.table(), classes)


def _scan(task: tuple[str, LabelRule]) -> ShardScan:
    # A plain function of one argument, which every parallel map can take.
    return scan_shard(*task)


def shard_names(urls: Sequence[str]) -> list[str]:
    """Returns a name for each shard: its file's, led by its folder's where files share one.

    Raises:
        ConfigError: There is no shard, or two share both.
    """
    if not urls:
        raise ConfigError("shards must be named, got none. Give a URL, a glob or a list.")
    for num_parts in (1, 2):
        names = ["-".join(url.split("/")[-num_parts:]).removesuffix(".tar") for url in urls]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name, count in Counter(names).items() if count > 1)
    raise ConfigError(f"shards must differ in folder or file name, got {twice!r} twice.")


def write_index(data_url: str, index: Index) -> None:
    """Writes index.parquet, shards.parquet and rejects.parquet into a run's data folder.

    Shards inside the folder are stored by relative URL, so that a moved run still opens.
    """
    inside = data_url.rstrip("/") + "/"
    urls = [url.removeprefix(inside) for url in index.shards["url"].to_pylist()]
    shards = index.shards.set_column(1, "url", pa.array(urls, pa.string()))
    shards = shards.replace_schema_metadata({_CLASSES: json.dumps(index.classes)})
    for name, table in (
        ("shards", shards),
        ("rejects", index.rejects),
        ("index", index.examples),
    ):
        write_table(files.join(data_url, f"{name}.parquet"), table)


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
    urls = [
        url if files.is_s3(url) or os.path.isabs(url) else files.join(data_url, url)
        for url in shards["url"].to_pylist()
    ]
    return shards.set_column(1, "url", pa.array(urls, pa.string()))


def write_table(url: str, table: pa.Table) -> None:
    """Writes a table as one Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    # Groups of rows that can be read alone: a scoring actor reads its shard's, not all.
    pq.write_table(table, sink, row_group_size=_ROW_GROUP)
    files.write_bytes(url, sink.getvalue().to_pybytes())


def read_table(url: str) -> pa.Table:
    """Reads one Parquet file."""
    with files.open_input(url) as stream:
        return pq.read_table(stream)
