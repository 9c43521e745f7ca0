"""Parquet and Arrow files of images, opened one at a time and read a group of rows at a time."""

import functools
import json
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.data.signatures import HEAD_BYTES, kind_of
from raygrad.errors import ConfigError
from raygrad.storage import files

ENDINGS = (".parquet", ".arrow")
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "content")
_LABEL_NAMES = ("label", "labels", "cls", "class", "target", "category", "fine_label")
_HUGGINGFACE = b"huggingface"


class TableFile:
    """A Parquet file, or an Arrow file as `datasets` saves it, whose columns are read by groups.

    Args:
        url: The file.

    Raises:
        ConfigError: It is no such file.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            with files.open_input(url) as stream:
                head = stream.read(HEAD_BYTES)
            self._open(url)
        except FileNotFoundError as error:
            raise ConfigError(
                f"files must be there, got nothing at {url}. Check the path."
            ) from error
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f"a table must be a whole Parquet or Arrow file, got {kind_of(head)}, in {url}. "
                "Fetch it again."
            ) from error

    def _open(self, url: str) -> None:
        self._batches: list[pa.RecordBatch] | None = None
        if url.endswith(".arrow"):
            source = pa.memory_map(url) if files.is_local(url) else files.open_input(url)
            reader = pa.ipc.open_stream(source)
            self.schema, self._batches = reader.schema, list(reader)
            self.group_rows = [batch.num_rows for batch in self._batches]
            return
        self._file = pq.ParquetFile(files.open_input(url))
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        self.group_rows = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]

    def read(self, group: int, column: str) -> list[Any]:
        """Returns the values of a column in a group of rows."""
        if self._batches is not None:
            return self._batches[group].column(column).to_pylist()
        return self._file.read_row_group(group, columns=[column]).column(column).to_pylist()

    def column_bytes(self, column: str) -> int:
        """Returns about how many bytes a column takes."""
        if self._batches is not None:
            return sum(batch.column(column).nbytes for batch in self._batches)
        metadata, total = self._file.metadata, 0
        for group in range(metadata.num_row_groups):
            for at in range(metadata.row_group(group).num_columns):
                chunk = metadata.row_group(group).column(at)
                if chunk.path_in_schema.split(".")[0] == column:
                    total += chunk.total_compressed_size
        return total


@functools.lru_cache(maxsize=2)
def _opened(url: str, pid: int) -> TableFile:
    del pid  # a forked process opens files of its own
    return TableFile(url)


def open_table(url: str) -> TableFile:
    """Returns a file, which this process keeps open for the next call."""
    return _opened(url, os.getpid())


@dataclass(frozen=True)
class TableColumns:
    """Which columns of a table of images are what."""

    image: str
    """The column of the encoded images: binary, or a struct with a field ``bytes``."""
    label: str
    """The column of the labels."""
    classes: tuple[str, ...]
    """The names of the classes, where the table has them (Hugging Face's ``ClassLabel``)."""


def table_columns(schema: pa.Schema, image: str, label: str, url: str) -> TableColumns:
    """Returns the columns of images and labels: those named, or else those that can be told.

    Args:
        schema: The table's.
        image: The column of the images, or nothing.
        label: The column of the labels, or nothing.
        url: The file, for the error.

    Raises:
        ConfigError: A column is not there, or there is not exactly one that it can be.
    """
    features = _features(schema)
    image = image or _only(
        [name for name in schema.names if _is_image(schema.field(name), features.get(name))],
        _IMAGE_NAMES, "image", schema, url,
    )  # fmt: skip
    labels = [name for name, one in features.items() if one.get("_type") == "ClassLabel"]
    label = label or _only(
        labels or [name for name in schema.names if name.lower() in _LABEL_NAMES],
        _LABEL_NAMES, "labels", schema, url,
    )  # fmt: skip
    for flag, name in (("image", image), ("labels", label)):
        if name not in schema.names:
            raise ConfigError(
                f"a column named by --{flag} must be in the table, got {name!r} for columns "
                f"{schema.names}, in {url}."
            )
    return TableColumns(image, label, tuple(features.get(label, {}).get("names") or ()))


def image_bytes(value: Any) -> bytes:
    """Returns the encoded image of a cell, no byte where it holds none."""
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else b""


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Returns what Hugging Face's `datasets` wrote down of each column."""
    text = (schema.metadata or {}).get(_HUGGINGFACE)
    if text is None:
        return {}
    found = json.loads(text).get("info", {}).get("features", {})
    return {name: one for name, one in found.items() if isinstance(one, dict)}


def _is_image(field: pa.Field, feature: dict[str, Any] | None) -> bool:
    if feature is not None and feature.get("_type") == "Image":
        return True
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _only(
    found: list[str], preferred: tuple[str, ...], flag: str, schema: pa.Schema, url: str
) -> str:
    named = [name for name in preferred for one in found if one.lower() == name]
    if len(found) == 1:
        return found[0]
    if named:
        return next(one for one in found if one.lower() == named[0])
    raise ConfigError(
        f"a table must have one column for --{flag}, got {found or 'none'} of {schema.names}, in "
        f"{url}. Name it: --{flag} COLUMN."
    )
