"""The index: one row an example, and tables of the shards and of what could not be used."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.data.class_numbers import ClassNumbers, found_classes, given_classes
from raygrad.data.columns import columns_digest
from raygrad.data.index_rows import (
    Rejects,
    text_counts,
    text_rows,
    with_distinct_keys,
    with_labels,
    with_validation,
)
from raygrad.data.label_rules import LabelRule
from raygrad.data.label_tables import LabelTable
from raygrad.data.shard_scan import ShardScan, scan_shard, tar_stem
from raygrad.data.unpacking import unpack
from raygrad.errors import ConfigError
from raygrad.storage import files

SHARD_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("url", pa.string()),
        ("num_examples", pa.int64()),
        ("num_bytes", pa.int64()),
        ("digest", pa.string()),
        ("source", pa.string()),
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
        return columns_digest(self.examples, ["key", "shard", "offset", "size", "label", "split"])

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
    image: str = "",
    renumber: bool = False,
    classes: Sequence[str] = (),
    expected_counts: Mapping[str, int] | None = None,
    max_reject_share: float = MAX_REJECT_SHARE,
    strict: bool = False,
    unpack_to: str | None = None,
    map_fn: Callable[..., Iterable[Any]] = map,
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
        split_seed: Changes which ones.
        labels: Where labels stand; see `LabelRule`.
        image: The extension of the members that are images; see `scan_shard`.
        renumber: Number classes anew, from 0 and without gaps.
        classes: The name of each class, in the order of their numbers. By default numbers are
            taken as they are, and names by their sorted order over the training shards.
        expected_counts: The number of examples of shards, by URL, where it is known.
        max_reject_share: The share of rejects that is accepted, in [0, 1].
        strict: Accept none, and fail on the first.
        unpack_to: The folder that compressed tars are unpacked into; by default they are damaged.
        map_fn: Like `map`; reads shards in parallel when given a parallel map.

    Raises:
        DataError: More is rejected than accepted.
        ConfigError: There is no shard, one is not there, or two of them cannot be told apart.
    """
    urls = [*train_urls, *test_urls]
    names = shard_names(urls)
    rule, rejects = LabelRule(labels), Rejects(strict)
    tasks = [_Task(u, n, rule, image, unpack_to) for n, u in zip(names, urls, strict=True)]
    places, scans = _scanned(tasks, map_fn, rejects)
    texts = _text_table(scans, set(names[: len(train_urls)]))
    table, note = with_distinct_keys(texts, rejects)
    table, numbering = _labelled(table, rule, classes, renumber, rejects)
    table = with_validation(table, val_fraction, split_seed)
    counts = _counts_by_shard(table)
    expected = dict(zip(names, map((expected_counts or {}).get, urls), strict=True))
    rejects.add_missing(scans, counts, expected)
    rejects.check_share(table.num_rows, max_reject_share)
    notes = tuple(one for one in (_hidden_note(scans.values()), note, *numbering.notes) if one)
    shards = _shard_table(urls, places, scans, counts)
    return Index(table, shards, rejects.table(), numbering.names, notes)


def _counts_by_shard(table: pa.Table) -> Counter[str]:
    found = table["shard"].value_counts().to_pylist()
    return Counter({row["values"]: row["counts"] for row in found})


def _scanned(
    tasks: Sequence["_Task"], map_fn: Callable[..., Iterable[Any]], rejects: Rejects
) -> tuple[list[str], dict[str, ShardScan]]:
    """Returns where each shard can be read, and what each holds by name; rejects are added."""
    places: list[str] = []
    scans: dict[str, ShardScan] = {}
    for task, (place, scan) in zip(tasks, map_fn(_scan, tasks), strict=True):
        rejects.add_scan(task.name, scan)
        scans[task.name] = scan
        places.append(place)
    return places, scans


def _text_table(scans: Mapping[str, ShardScan], train: Set[str]) -> pa.Table:
    """Returns the examples of all shards, labels as they are written."""
    return pa.concat_tables(
        text_rows(name, scan, "train" if name in train else "test") for name, scan in scans.items()
    )


def _shard_table(
    urls: Sequence[str],
    places: Sequence[str],
    scans: Mapping[str, ShardScan],
    counts: Mapping[str, int],
) -> pa.Table:
    """Returns one row a shard; `counts` has 0 for shards without examples."""
    columns = [
        [*scans],
        [*places],
        [counts[name] for name in scans],
        [scan.num_bytes for scan in scans.values()],
        [scan.digest for scan in scans.values()],
        [*urls],
    ]
    return pa.table(columns, schema=SHARD_SCHEMA)


def _labelled(
    table: pa.Table, rule: LabelRule, classes: Sequence[str], renumber: bool, rejects: Rejects
) -> tuple[pa.Table, ClassNumbers]:
    """Returns rows with the numbers of their classes, and the classes."""
    no_label = ""
    if rule.is_table:
        known = LabelTable(rule)
        texts = [text or None for text in known.labels(table["key"].to_pylist())]
        column = table.schema.get_field_index("text")
        table = table.set_column(column, "text", pa.array(texts, pa.string()))
        no_label = known.problem()
    if classes:
        numbering = given_classes(classes, rule)
    else:
        numbering = found_classes(text_counts(table, "train"), rule, renumber=renumber)
    return with_labels(table, numbering, rejects, no_label), numbering


def _hidden_note(scans: Iterable[ShardScan]) -> str:
    found = [scan.hidden for scan in scans if scan.hidden[0]]
    if not found:
        return ""
    return f"{sum(count for count, _ in found)} hidden files left out, such as {found[0][1]!r}"


@dataclass(frozen=True)
class _Task:
    """A shard to be scanned."""

    url: str
    name: str
    labels: LabelRule
    image: str
    unpack_to: str | None


def _scan(task: _Task) -> tuple[str, ShardScan]:
    # A plain function of one argument, which every parallel map can take.
    try:
        scan = scan_shard(task.url, task.labels, task.image)
        if not scan.compression or task.unpack_to is None:
            return task.url, scan
        place = files.join(task.unpack_to, f"{task.name}.tar")
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


def shard_names(urls: Sequence[str]) -> list[str]:
    """Returns a name for each shard: its file's, led by its folders' where files share one.

    Raises:
        ConfigError: There is no shard, or two are one file.
    """
    if not urls:
        raise ConfigError("shards must be named, got none. Give a URL, a glob or a list.")
    parts = [[one for one in url.split("/")[:-1] if one] for url in urls]
    stems = [tar_stem(url) for url in urls]
    for depth in range(max(map(len, parts)) + 1):
        names = [
            "-".join([*part[len(part) - depth :], stem])
            for part, stem in zip(parts, stems, strict=True)
        ]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name, count in Counter(names).items() if count > 1)
    raise ConfigError(f"shards must differ in folder or file name, got {twice!r} twice.")


def write_index(data_url: str, index: Index) -> None:
    """Writes index.parquet, shards.parquet and rejects.parquet into a run's data folder.

    Shards inside the folder are stored by relative URL, so that a moved run still opens.
    """
    inside = data_url.rstrip("/") + "/"
    shards = index.shards
    for at, column in enumerate(SHARD_SCHEMA.names):
        if column in ("url", "source"):
            urls = [url.removeprefix(inside) for url in shards[column].to_pylist()]
            shards = shards.set_column(at, column, pa.array(urls, pa.string()))
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
    """Reads one Parquet file."""
    with files.open_input(url) as stream:
        return pq.read_table(stream)
