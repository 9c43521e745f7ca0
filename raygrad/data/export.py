"""A subset as new WebDataset shards: for training elsewhere, with any loader."""

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raygrad.data.example_sets import Example
from raygrad.data.index import Index
from raygrad.data.reading import EncodedExample, read_rows, rows_of_keys
from raygrad.data.shards import write_tar
from raygrad.data.signatures import HEAD_BYTES, IMAGE_EXTENSIONS, kind_of
from raygrad.errors import ConfigError
from raygrad.progress import Progress
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_marker, write_marker

EXPORT_FILE = "export.json"
_TAR_BLOCK = 512
_NAME = re.compile(r"subset-\d{6,}\.tar")


def export_subset(
    index: Index,
    keys: Sequence[str],
    out: str,
    *,
    shard_bytes: int = 256 * 2**20,
    weights: Mapping[str, float] | None = None,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> list[str]:
    """Writes the examples of a subset as new shards and returns their URLs.

    Images and labels are copied as they are. The same index, keys and `shard_bytes` give the same
    bytes, whatever the order of the keys. Each tar appears whole or not at all; an export that was
    broken off goes on when it is called again. Examples keep the order of the index.

    Args:
        index: The data set that the subset is from.
        keys: The subset.
        out: The folder of the new shards, a URL.
        shard_bytes: About how large a tar becomes.
        weights: Inclusion weights of a weighted draw, by key; an example with one gets a member
            ``<key>.json`` with label and weight.
        map_fn: Like `map`; writes shards in parallel when given a parallel map.

    Raises:
        ConfigError: The subset is empty or names a key twice, or `out` holds another export.
        DataError: A key is not in the index, or a shard is not what was indexed.
    """
    if not keys or len(set(keys)) < len(keys):
        raise ConfigError(
            f"a subset must name at least one key, and each once, got {len(keys)} keys of which "
            f"{len(set(keys))} differ. Draw it again."
        )
    rows = _in_index_order(index, rows_of_keys(index, keys))
    columns = ["key", "shard", "offset", "size", "label"]
    inputs = digest([shard_bytes, weights or {}, *(rows[name].to_pylist() for name in columns)])
    marker_url = files.join(out, EXPORT_FILE)
    marker, there = _begun(out, marker_url, inputs)
    parts = _cut(rows, shard_bytes)
    urls = [files.join(out, f"subset-{number:06d}.tar") for number in range(len(parts))]
    is_whole = there >= {url.rsplit("/", 1)[-1] for url in urls}
    if marker is None or not marker["complete"] or not is_whole:
        tasks = [
            (url, part, _weights_of(part, weights or {}))
            for url, part in zip(urls, parts, strict=True)
        ]
        progress = Progress("export", rows.num_rows, "examples")
        for count in map_fn(functools.partial(_write_part, index), tasks):
            progress.add(count)
        facts = {"num_examples": rows.num_rows, "num_shards": len(urls), "classes": index.classes}
        write_marker(marker_url, inputs, complete=True, **facts)
    return urls


def _begun(out: str, marker_url: str, inputs: str) -> tuple[dict[str, Any] | None, set[str]]:
    """Returns the marker of an export that was begun, None where none was, and what is there.

    Raises:
        ConfigError: The folder is of another export.
    """
    there = {name for name, _ in files.list_entries(out)}
    marker = read_marker(marker_url)
    if marker and marker["inputs_digest"] != inputs:
        raise ConfigError(f"a folder must hold one export, got another in {out}. Name another.")
    foreign = [name for name in sorted(there) if _NAME.fullmatch(name)] if marker is None else []
    if foreign:
        raise ConfigError(
            f"a folder must hold one export, got {foreign[0]} of another, in {out}. Name another."
        )
    if marker is None:
        write_marker(marker_url, inputs, complete=False)
    return marker, there


def _write_part(index: Index, task: tuple[str, pa.Table, dict[str, float]]) -> int:
    url, rows, weights = task
    if not files.exists(url):
        with files.open_output(url) as stream:
            write_tar(stream, (_as_example(e, weights.get(e.key)) for e in read_rows(index, rows)))
    return rows.num_rows


def _weights_of(rows: pa.Table, weights: Mapping[str, float]) -> dict[str, float]:
    return {key: weights[key] for key in rows["key"].to_pylist() if key in weights}


def _as_example(example: EncodedExample, weight: float | None) -> Example:
    # By its content, so that a reader that goes by names finds what they say.
    extension = IMAGE_EXTENSIONS.get(kind_of(example.image[:HEAD_BYTES]), "jpg")
    extra: tuple[tuple[str, bytes], ...] = ()
    if weight is not None:
        values = {"label": example.label, "weight": weight}
        extra = (("json", json.dumps(values).encode()),)
    return Example(example.key, example.image, extension, example.label, extra)


def _in_index_order(index: Index, rows: pa.Table) -> pa.Table:
    places = {name: at for at, name in enumerate(index.shards["name"].to_pylist())}
    place = np.array([places[name] for name in rows["shard"].to_pylist()])
    return rows.take(pa.array(np.lexsort([rows["offset"].to_numpy(), place])))


def _cut(rows: pa.Table, shard_bytes: int) -> list[pa.Table]:
    """Cuts rows into tables whose tars have about `shard_bytes`."""
    blocks = -(-rows["size"].to_numpy() // _TAR_BLOCK) + 3
    ends = np.cumsum(blocks) * _TAR_BLOCK
    number = np.maximum(ends - 1, 0) // max(1, shard_bytes)
    bounds = [*np.unique(number, return_index=True)[1].tolist(), rows.num_rows]
    return [rows.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
