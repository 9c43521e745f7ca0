"""A subset as other tools open it: class folders, a Hugging Face data set, a FiftyOne folder.

Each is plain files; none of the tools is needed to write them.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from raygrad.data.index import Index, write_table
from raygrad.data.reading import EncodedExample, read_rows
from raygrad.data.signatures import HEAD_BYTES, IMAGE_EXTENSIONS, kind_of
from raygrad.errors import ConfigError
from raygrad.storage import files

_ROWS_A_FILE = 10_000
_MAX_NAME_BYTES = 240
"""What file systems hold of a name, 255 bytes, with room for an ending and what a store adds."""


def write_class_folders(index: Index, rows: pa.Table, out: str) -> int:
    """Writes images as ``<class name>/<key>.<ending>``, copies; returns how many.

    Slashes of a key become ``__``, so that every file stands right in its class's folder.

    Raises:
        ConfigError: The folder is not empty, or two keys or classes would have one name.
    """
    require_empty(out)
    labels = rows["label"].to_pylist()
    folders = {label: _safe(_class_name(index, label)) for label in sorted(set(labels))}
    _require_names([(name, _class_name(index, at)) for at, name in folders.items()], "class")
    keys = rows["key"].to_pylist()
    places = [f"{folders[label]}/{_safe(key)}" for key, label in zip(keys, labels, strict=True)]
    _require_names(list(zip(places, keys, strict=True)), "key")
    count = 0
    for example in read_rows(index, rows):
        name = files.join(out, folders[example.label], _file_name(example))
        files.write_bytes(name, example.image)
        count += 1
    return count


def write_huggingface(index: Index, rows: pa.Table, out: str) -> int:
    """Writes Parquet files that ``datasets.load_dataset("parquet")`` opens; returns how many rows.

    The image is decoded when it is asked for, the label has its names, and every other column of
    `rows` stands beside them.
    """
    require_empty(out)
    extra = _extra(rows)
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features["label"] = {"names": list(_names(index)), "_type": "ClassLabel"}
    for field in extra.schema:
        features[field.name] = {"dtype": _dtype(field.type), "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    where = {key: at for at, key in enumerate(rows["key"].to_pylist())}
    examples, number = read_rows(index, rows), 0
    while part := [e for e, _ in zip(examples, range(_ROWS_A_FILE), strict=False)]:
        images = [{"bytes": e.image, "path": _file_name(e)} for e in part]
        table = extra.take(pa.array([where[e.key] for e in part]))
        table = table.add_column(0, "label", pa.array([e.label for e in part], pa.int64()))
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = table.add_column(0, "image", pa.array(images, kind))
        url = files.join(out, f"train-{number:05d}.parquet")
        write_table(url, table.replace_schema_metadata(metadata))
        number += 1
    return rows.num_rows


def write_fiftyone(index: Index, rows: pa.Table, out: str) -> int:
    """Writes a folder of FiftyOne's type FiftyOneImageClassificationDataset; returns how many.

    ``data/`` holds the images; ``labels.json`` the classes and, as attributes of each label, every
    other column of `rows`.

    Raises:
        ConfigError: The folder is not empty, or two keys would have one name.
    """
    require_empty(out)
    keys = rows["key"].to_pylist()
    _require_names([(_safe(key), key) for key in keys], "key")
    values = {row["key"]: row for row in _extra(rows).to_pylist()}
    labels: dict[str, Any] = {}
    for example in read_rows(index, rows):
        name = _file_name(example)
        files.write_bytes(files.join(out, "data", name), example.image)
        label = {"label": example.label, "attributes": values[example.key]}
        labels[name.rsplit(".", 1)[0]] = label
    text = json.dumps({"classes": list(_names(index)), "labels": labels})
    files.write_bytes(files.join(out, "labels.json"), text.encode())
    return len(labels)


def _extra(rows: pa.Table) -> pa.Table:
    kept = {"key_hash", "offset", "size", "label"}
    return rows.select([name for name in rows.column_names if name not in kept])


def _dtype(kind: pa.DataType) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _names(index: Index) -> Iterator[str]:
    largest = max(index.examples["label"].to_pylist(), default=-1)
    return (_class_name(index, at) for at in range(max(largest + 1, len(index.classes))))


def _class_name(index: Index, label: int) -> str:
    return index.classes[label] if label < len(index.classes) else str(label)


def _file_name(example: EncodedExample) -> str:
    ending = IMAGE_EXTENSIONS.get(kind_of(example.image[:HEAD_BYTES]), "jpg")
    return f"{_safe(example.key)}.{ending}"


def _safe(name: str) -> str:
    name = name.replace("/", "__").replace("\0", "")
    return name if name.strip(".") else "_" * max(1, len(name))  # not the folder itself or above


def _require_names(names: Sequence[tuple[str, str]], what: str) -> None:
    """Raises ConfigError where a file or folder could not have its name, or two would share it.

    Args:
        names: The name of each, and what it is of.
        what: What they are of: a key or a class.
    """
    owners: dict[str, str] = {}
    for name, of in names:
        if owners.setdefault(name, of) != of:
            raise ConfigError(
                f"files of an export must differ in name, got {name!r} for each {what} of "
                f"{owners[name]!r} and {of!r}. Export as webdataset or huggingface."
            )
        last = name.rpartition("/")[2]
        if len(last.encode(errors="surrogateescape")) > _MAX_NAME_BYTES:
            raise ConfigError(
                f"names of files must have at most {_MAX_NAME_BYTES} bytes, got more for the "
                f"{what} {of!r}. Export as webdataset or huggingface."
            )


def require_empty(out: str) -> None:
    """Raises ConfigError unless a folder is empty or not there, so that two exports do not mix."""
    if files.list_entries(out):
        raise ConfigError(f"an export needs an empty folder, got files in {out}. Name another.")
