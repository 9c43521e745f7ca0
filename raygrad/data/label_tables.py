"""Labels from a table beside the data: a CSV or Parquet file of keys, or file names, and labels."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow.parquet as pq

from raygrad.data.label_rules import LabelRule
from raygrad.errors import ConfigError
from raygrad.storage import files

_KEYS = (
    "key", "__key__", "image_id", "imageid", "id", "file_name", "filename", "file", "image",
    "image_name", "name", "path", "img",
)  # fmt: skip
_LABELS = (
    "label", "labels", "class", "class_name", "class_id", "cls", "target", "category", "y",
    "wnid", "synset", "diagnosis", "breed",
)  # fmt: skip
_ENDINGS = (
    "jpg", "jpeg", "jfif", "jpe", "png", "webp", "gif", "bmp", "tif", "tiff",
)  # fmt: skip


class LabelTable:
    """Labels by key. A key is looked for whole first, then by its file's name alone.

    The first row of a CSV names its columns, unless what it names is one of the examples.

    Args:
        rule: Names the table.

    Raises:
        ConfigError: There is no such table, or its columns cannot be told.
    """

    def __init__(self, rule: LabelRule) -> None:
        url, key, label = rule.table
        names, rows = _read(url)
        at_key, at_label = _columns(names, key, label, url)
        self._name = url.rsplit("/", 1)[-1]
        self._labels: dict[str, str | None] = {}
        self._unused: list[str] = []
        for row in rows:
            self._add(row[at_key], row[at_label])
        if not self._labels:
            raise ConfigError(f"a table of labels must have rows, got none in {url}.")
        head = names[at_key].strip().lower(), names[at_label].strip().lower()
        # Columns of a Parquet file have names in any case, and those of most others do.
        is_head = url.endswith(".parquet") or (head[0] in _KEYS and head[1] in _LABELS)
        self._head = None if is_head else (names[at_key], names[at_label])

    def _add(self, key: str, label: str) -> None:
        name, text = without_ending(key.removeprefix("./")), label.strip()
        if self._labels.setdefault(name, text) != text:
            self._labels[name] = None  # two labels are none

    def labels(self, keys: Sequence[str]) -> list[str | None]:
        """Returns the label of each key, None where there is none, or not one alone."""
        last = Counter(map(_last, keys))
        if self._head is not None:
            head = without_ending(self._head[0].removeprefix("./"))
            if head in last or head in (key.removeprefix("./") for key in keys):
                self._add(*self._head)
        found: list[str | None] = []
        used: set[str] = set()
        for key in keys:
            name = key.removeprefix("./")
            if name not in self._labels and last[_last(key)] == 1:
                name = _last(key)
            found.append(self._labels.get(name))
            used.add(name)
        self._unused = [name for name in self._labels if name not in used]
        return found

    def note(self) -> str:
        """Returns what to say of rows that were the label of no key, nothing where all were."""
        if not self._unused:
            return ""
        return (
            f"{len(self._unused):,} of {len(self._labels):,} rows of {self._name} name no example, "
            f"such as {self._unused[0][:60]!r}"
        )

    def problem(self) -> str:
        """Returns the reason of an example without a label."""
        return f"no label: {self._name} has no row of this key, or two that differ"


def without_ending(name: str) -> str:
    """Returns a file's name without the ending of an image."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in _ENDINGS else name


def _last(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _read(url: str) -> tuple[list[str], Iterable[list[str]]]:
    """Returns the names of a table's columns, and its rows as text."""
    try:
        content = files.read_bytes(url)
    except FileNotFoundError as error:
        raise ConfigError(
            f"a table of labels must be there, got nothing at {url}. Check --labels."
        ) from error
    if url.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(content))
        columns = [map(_text, column.to_pylist()) for column in table.columns]
        return table.column_names, map(list, zip(*columns, strict=True))
    lines = csv.reader(
        io.StringIO(content.decode("utf-8-sig", errors="backslashreplace"), newline=""),
        delimiter="\t" if url.endswith(".tsv") else ",",
    )
    try:
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise ConfigError(
            f"a table of labels must be CSV, got {error} in row {lines.line_num} of {url}. Look "
            "for a quotation mark that does not close."
        ) from error
    if not rows:
        raise ConfigError(f"a table of labels must have rows, got none in {url}.")
    width = len(rows[0])
    odd = next((at for at, row in enumerate(rows, 1) if len(row) != width), None)
    if odd is not None:
        raise ConfigError(
            f"every row of a table of labels must have {width} columns, got {len(rows[odd - 1])} "
            f"in row {odd} of {url}. Mend it."
        )
    return rows[0], rows[1:]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas makes floats of integers beside an empty cell
    return str(value)


def _columns(names: list[str], key: str | None, label: str | None, url: str) -> tuple[int, int]:
    if key is not None and label is not None:
        for name in (key, label):
            if name not in names:
                raise ConfigError(
                    f"a table of labels must have the column {name!r}, got {names} in {url}."
                )
        return names.index(key), names.index(label)
    if len(names) == 2:
        return 0, 1
    lower = [name.strip().lower() for name in names]
    found = [
        next((lower.index(name) for name in wanted if name in lower), None)
        for wanted in (_KEYS, _LABELS)
    ]
    if found[0] is None or found[1] is None or found[0] == found[1]:
        raise ConfigError(
            f"the columns of keys and labels must be told, got {names} in {url}. "
            f"Do: --labels {url}:KEY:LABEL."
        )
    return found[0], found[1]
