"""Parquet and Hugging Face data sets with a column of images, as examples to be written as shards.

They become shards, not rows read in place: an example is then a range of bytes under a key, as
everywhere, and what was written before a stop is kept.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raygrad.data.class_numbers import ClassNumbers, found_classes, given_classes
from raygrad.data.example_sets import Example, content_hash
from raygrad.data.image_folders import quoted
from raygrad.data.index import shard_names
from raygrad.data.label_rules import LabelRule
from raygrad.data.signatures import HEAD_BYTES, IMAGE_EXTENSIONS, kind_of
from raygrad.data.table_files import TableColumns, TableFile, image_bytes, open_table, table_columns
from raygrad.errors import ConfigError

_NO_LABEL = ("", "-1")
"""What stands in the place of a label that is not told: null, and Hugging Face's -1."""


@dataclass(frozen=True)
class TableExamples:
    """Rows of tables; the image of each is copied as it is."""

    urls: tuple[str, ...]
    """The files."""
    image: str
    """The column of the images."""
    places: NDArray[np.int64]
    """`[N, 3]`: file, group of rows, and row within the group."""
    names: tuple[str, ...]
    """The keys, N of them: the name of the file and the number of the row in it."""
    labels: NDArray[np.int64]
    """Classes `[N]`."""
    num_bytes: int
    """About how many bytes all images have."""

    in_order = True
    """Rows are written in their order: a shard of rows from everywhere would read everything."""

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Example]:
        current, values = (-1, -1), []
        for key, place, label in zip(self.names, self.places.tolist(), self.labels, strict=True):
            if (place[0], place[1]) != current:
                current = (place[0], place[1])
                values = open_table(self.urls[place[0]]).read(place[1], self.image)
            image = image_bytes(values[place[2]])
            extension = IMAGE_EXTENSIONS.get(kind_of(image[:HEAD_BYTES]), "jpg")
            yield Example(key, image, extension, int(label))

    def keys(self) -> tuple[str, ...]:
        """Returns the keys."""
        return self.names

    def image_bytes(self) -> int:
        """Returns about how many bytes all images have."""
        return self.num_bytes

    def fingerprint(self) -> str:
        """Returns a hash of keys, labels and the size of the images' columns."""
        return content_hash(self.names, self.labels, np.array([self.num_bytes]))

    def take(self, positions: NDArray[np.int64]) -> "TableExamples":
        """Returns the examples at `positions`; in ascending order they are read in one pass."""
        share = len(positions) / max(1, len(self))
        return TableExamples(
            self.urls,
            self.image,
            self.places[positions],
            tuple(self.names[at] for at in positions.tolist()),
            self.labels[positions],
            round(self.num_bytes * share),
        )


@dataclass
class _Rows:
    """The rows of a split, their labels still as text."""

    places: list[tuple[int, int, int]]
    names: list[str]
    texts: list[str]
    num_bytes: int


@dataclass(frozen=True)
class TableSplits:
    """A data set of tables before it is written."""

    train: TableExamples
    """Training examples, validation included."""
    test: TableExamples
    """Test examples."""
    numbering: ClassNumbers
    """The classes."""
    rejects: tuple[tuple[str, str], ...]
    """Key and reason of the rows without a label that is a class."""
    notes: tuple[str, ...] = ()
    """What the user should know of the files: a line each."""


def table_splits(
    train_urls: Sequence[str],
    test_urls: Sequence[str],
    *,
    image: str = "",
    label: str = "",
    renumber: bool = False,
) -> TableSplits:
    """Opens tables of images and labels.

    Args:
        train_urls: Files of training examples.
        test_urls: Files of test examples.
        image: The column of the images; by default the one that is of images.
        label: The column of the labels; by default the one of a class or of that name.
        renumber: Number classes anew, from 0 and without gaps.

    Raises:
        ConfigError: A file is no table, or its columns are not those of the first.
    """
    urls = [*train_urls, *test_urls]
    names = shard_names([url.removesuffix(".parquet").removesuffix(".arrow") for url in urls])
    first = table_columns(TableFile(urls[0]).schema, image, label, urls[0])
    parts = [_Rows([], [], [], 0), _Rows([], [], [], 0)]
    notes = []
    for at, url in enumerate(urls):
        notes += _add_rows(parts[at >= len(train_urls)], at, url, names[at], first)
    if first.classes:
        numbering = given_classes(first.classes, LabelRule("cls"))
    else:
        texts = [text for text in parts[0].texts if text not in _NO_LABEL]
        numbering = found_classes(Counter(texts), LabelRule("cls"), renumber=renumber)
    rejects: list[tuple[str, str]] = []
    train, test = (_examples(part, tuple(urls), first.image, numbering, rejects) for part in parts)
    return TableSplits(train, test, numbering, tuple(rejects), tuple(notes))


def _add_rows(rows: _Rows, at: int, url: str, name: str, columns: TableColumns) -> list[str]:
    """Adds the rows of a file; returns what is to be said of it."""
    table = TableFile(url)
    for column in (columns.image, columns.label):
        if column not in table.schema.names:
            raise ConfigError(
                f"every table of a data set must have the column {column!r}, got "
                f"{table.schema.names}, in {url}. Name the files of one data set."
            )
    own = table_columns(table.schema, columns.image, columns.label, url).classes
    is_named = bool(own and columns.classes)
    number, key = 0, quoted(name)
    for group, count in enumerate(table.group_rows):
        rows.places += [(at, group, row) for row in range(count)]
        rows.names += [f"{key}-{number + row:08d}" for row in range(count)]
        texts = map(_text, table.read(group, columns.label))
        rows.texts += _renumbered(texts, own, columns.classes) if is_named else texts
        number += count
    rows.num_bytes += table.column_bytes(columns.image)
    if bool(own) == bool(columns.classes):
        return []
    which = "names its classes, the first table does not" if own else "has no names of classes"
    return [f"{url} {which}: its labels are taken for numbers as the first table's are"]


def _renumbered(texts: Iterable[str], own: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Returns the numbers of a file's classes as those of the first file, by the names of both.

    A class that the first file does not have is its name, which is then no class.
    """
    if tuple(own) == tuple(wanted):
        return list(texts)
    numbers = {name: str(number) for number, name in enumerate(wanted)}
    new = {str(number): numbers.get(name, f"{name} ") for number, name in enumerate(own)}
    return [new.get(text, text) for text in texts]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace").strip()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _examples(
    rows: _Rows,
    urls: tuple[str, ...],
    image: str,
    numbering: ClassNumbers,
    rejects: list[tuple[str, str]],
) -> TableExamples:
    number_of = {text: numbering.number_of(text) for text in set(rows.texts)}
    labels = np.array([number_of[text] for text in rows.texts], np.int64)
    for at in np.flatnonzero(labels < 0).tolist():
        text = rows.texts[at]
        reason = "no label" if text in _NO_LABEL else f"label is no class: {text[:80]!r}"
        rejects.append((rows.names[at], reason))
    places = np.array(rows.places, np.int64).reshape(-1, 3)
    everything = TableExamples(urls, image, places, tuple(rows.names), labels, rows.num_bytes)
    return everything.take(np.flatnonzero(labels >= 0)) if (labels < 0).any() else everything
