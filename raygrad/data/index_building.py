"""Building an index shard by shard: scans, repeated keys, classes and splits, then its rows.

No step holds a Python object a row: what grows with the rows is their hashes, eight bytes each.
Labels in a table beside the shards are the exception, for that table is read as a whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from raygrad.data.class_numbers import ClassNumbers, found_classes, given_classes
from raygrad.data.index_parts import Parts, Scanned, Task, scanned
from raygrad.data.index_rows import (
    PART_SCHEMA,
    SHARD_SCHEMA,
    Rejects,
    text_counts,
    text_rows,
    with_labels,
    with_validation,
)
from raygrad.data.label_rules import LabelRule
from raygrad.data.label_tables import LabelTable
from raygrad.data.repeated_keys import Distinct, HashStore, RepeatedKeys
from raygrad.data.shard_scan import ShardScan, tar_stem
from raygrad.errors import ConfigError
from raygrad.progress import Progress

MAX_REJECT_SHARE = 0.01
_MANY = 1000
"""From so many shards on it is told how many have been scanned, and written: they take minutes."""


@dataclass(frozen=True)
class IndexOptions:
    """How an index is built."""

    val_fraction: float
    """The share of training examples held out."""
    split_seed: int = 0
    """Changes which ones."""
    labels: str = "cls"
    """Where labels stand; see `LabelRule`."""
    image: str = ""
    """The extension of the members that are images; see `scan_shard`."""
    renumber: bool = False
    """Number classes anew, from 0 and without gaps."""
    classes: Sequence[str] = ()
    """The name of each class, in the order of their numbers. By default numbers are taken as they
    are, and names by their sorted order over the training shards."""
    expected_counts: Mapping[str, int] | None = None
    """The number of examples of shards, by URL, where it is known."""
    max_reject_share: float = MAX_REJECT_SHARE
    """The share of rejects that is accepted, in [0, 1]."""
    strict: bool = False
    """Accept none, and fail on the first."""
    unpack_to: str | None = None
    """The folder that compressed tars are unpacked into; by default they are damaged."""
    map_fn: Callable[..., Iterable[Any]] = map
    """Like `map`; reads shards in parallel when it is a parallel map."""


@dataclass(frozen=True)
class Head:
    """An index without its examples."""

    num_examples: int
    shards: pa.Table
    """Columns of `SHARD_SCHEMA`."""
    rejects: pa.Table
    """Columns of `REJECT_SCHEMA`."""
    classes: tuple[str, ...]
    notes: tuple[str, ...]


class Sink(Protocol):
    """Takes the rows of an index, one shard after the other."""

    def write_table(self, table: pa.Table) -> None:
        """Takes rows with the columns of `INDEX_SCHEMA`."""


def build(
    train_urls: Sequence[str],
    test_urls: Sequence[str],
    options: IndexOptions,
    parts: Parts,
    sink: Sink,
) -> Head:
    """Scans shards into parts, and gives the rows of the index to a sink.

    Raises:
        DataError: More is rejected than accepted.
        ConfigError: There is no shard, one is not there, or two of them cannot be told apart.
    """
    urls = [*train_urls, *test_urls]
    names = shard_names(urls)
    rule, rejects = LabelRule(options.labels), Rejects(options.strict)
    shards = _Shards(
        parts.tasks(  # no other list holds them: at very many shards each is tens of megabytes
            [
                Task(url, name, at < len(train_urls), rule, options.image, options.unpack_to)
                for at, (url, name) in enumerate(zip(urls, names, strict=True))
            ]
        ),
        parts,
        rejects,
    )
    shards.scan(options.map_fn)
    numbering = shards.numbering(rule, options)
    counts: Counter[str] = Counter()
    for name, rows in shards.labelled(rule, numbering):
        rows = with_validation(rows, options.val_fraction, options.split_seed)
        counts[name] = rows.num_rows
        sink.write_table(rows)
    expected = (options.expected_counts or {}).get
    rejects.add_missing(shards.scans, counts, dict(zip(names, map(expected, urls), strict=True)))
    rejects.check_share(counts.total(), options.max_reject_share)
    notes = (
        _hidden_note(shards.scans.values()),
        shards.note,
        shards.labels_note,
        *numbering.notes,
    )
    table = _shard_table(urls, shards.places, shards.scans, counts)
    kept = tuple(one for one in notes if one)
    return Head(counts.total(), table, rejects.table(), numbering.names, kept)


@dataclass
class _Shards:
    """The shards of an index while it is built."""

    tasks: list[Task]
    parts: Parts
    rejects: Rejects
    places: list[str] = field(default_factory=list)
    """Where each shard can be read."""
    scans: dict[str, ShardScan] = field(default_factory=dict)
    """What each holds beside its rows, by name."""
    note: str = ""
    """What the user should know of repeated keys."""
    labels_note: str = ""
    """What the user should know of labels in a table."""

    def scan(self, map_fn: Callable[..., Iterable[Any]]) -> None:
        """Scans all shards, and looks for keys that repeat."""
        hashes, self._counts = HashStore(), Counter[str]()
        progress = self._progress("shards")
        no_rows, no_rejects = PART_SCHEMA.empty_table(), list[tuple[str, str]]()
        found: Scanned
        for at, (task, found) in enumerate(
            zip(self.tasks, map_fn(scanned, self.tasks), strict=True)
        ):
            self.rejects.add_scan(task.name, found.scan)
            # A table without rows takes kilobytes too, and keeps what it was sent with.
            self.scans[task.name] = replace(found.scan, examples=no_rows, rejects=no_rejects)
            # What came from another process is another text of the same characters.
            self.places.append(task.url if found.place == task.url else found.place)
            hashes.add(found.hashes)
            self._counts.update(found.text_counts if task.is_train else {})
            self.parts.keep(at, found)
            if progress is not None:
                progress.add(1)
        self._repeated = RepeatedKeys(hashes.sorted(), [task.name for task in self.tasks])
        if self._repeated:
            self._tell_of_repeated()

    def numbering(self, rule: LabelRule, options: IndexOptions) -> ClassNumbers:
        """Returns the classes, after labels of a table have been looked up."""
        self._labels = _TableLabels(rule, self._distinct()) if rule.is_table else None
        self.labels_note = "" if self._labels is None else self._labels.note
        if options.classes:
            return given_classes(options.classes, rule)
        if self._labels is not None:
            self._counts = Counter()
            for at, task in enumerate(self.tasks):
                if task.is_train:
                    self._counts.update(text_counts(self._labels.texts(at)))
        return found_classes(+self._counts, rule, renumber=options.renumber)

    def labelled(self, rule: LabelRule, numbering: ClassNumbers) -> Iterator[tuple[str, pa.Table]]:
        """Yields name and rows of one shard after the other, with the numbers of classes."""
        no_label = "" if self._labels is None else self._labels.problem
        progress = self._progress("shards written")
        for at, one in enumerate(self._distinct()):
            task, part = self.tasks[at], one.rows
            if self._labels is not None:
                texts = self._labels.texts(at)["text"]
                part = part.set_column(part.schema.get_field_index("text"), "text", texts)
            rows = text_rows(part, task.name, "train" if task.is_train else "test")
            yield task.name, with_labels(rows, numbering, self.rejects, no_label)
            if progress is not None:
                progress.add(1)

    def _progress(self, unit: str) -> Progress | None:
        """Returns what tells of shards that take minutes, None where they are few."""
        return Progress("prepare", len(self.tasks), unit) if len(self.tasks) >= _MANY else None

    def _distinct(self) -> Iterator[Distinct]:
        for at, rows in enumerate(self.parts.tables()):
            yield self._repeated.distinct(at, rows) if self._repeated else Distinct(rows)

    def _tell_of_repeated(self) -> None:
        """Counts keys of other shards, and takes those without a name of their own for rejects."""
        num, first = 0, ""
        for task, one in zip(self.tasks, self._distinct(), strict=True):
            if one.renamed and not num:
                key, holder = one.renamed[0]
                name = f"{task.name}/{key}"
                first = (
                    f"such as {key!r} of {task.name} in {holder}: they are taken for other "
                    f"examples, and the shard's name is put before the key: {name!r}"
                )
            num += len(one.renamed)
            for key, holder in one.taken:
                self.rejects.add(task.name, key, f"duplicate key, first in {holder}")
            if one.left_out is not None and task.is_train:
                self._counts.subtract(text_counts(one.left_out))
        if num:
            self.note = f"{num} keys stand in an earlier shard too, {first}"


class _TableLabels:
    """The labels of all rows, from a table beside the shards."""

    def __init__(self, rule: LabelRule, shards: Iterable[Distinct]) -> None:
        known = LabelTable(rule)
        self.problem = known.problem()
        keys: list[str] = []
        self._ends = [0]
        for one in shards:
            keys += one.rows["key"].to_pylist()
            self._ends.append(len(keys))
        texts = [text or None for text in known.labels(keys)]
        self.note = known.note()
        self._texts = pa.table({"text": pa.array(texts, pa.string())})

    def texts(self, at: int) -> pa.Table:
        """Returns the labels of a shard's rows, as the column ``text``."""
        start, end = self._ends[at : at + 2]
        return self._texts.slice(start, end - start)


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


def _hidden_note(scans: Iterable[ShardScan]) -> str:
    found = [scan.hidden for scan in scans if scan.hidden[0]]
    if not found:
        return ""
    return f"{sum(count for count, _ in found)} hidden files left out, such as {found[0][1]!r}"
