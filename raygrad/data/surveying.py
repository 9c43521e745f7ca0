"""What has to be known of images that are not kept: which can be decoded, their size, their bytes.

One pass over the images, once a run, a shard at a time: each shard leaves a file, so that a pass
that is cut off goes on. What comes of it is a table of rejects, and a few numbers beside it.
"""

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.arrays import byte_counts, decoded
from raygrad.data.decode import DECODED_BY
from raygrad.data.index import Index, read_table, write_table
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.reading import read_rows
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError
from raygrad.storage import files
from raygrad.storage.manifest import digest

_FORMAT = 1
_FACTS = b"raygrad.survey"
_COUNTED = 2**24
"""Bytes of pixels that are counted at a time, at least an image."""


@dataclass(frozen=True)
class Survey:
    """What is known of the images of a split, or of a shard of it."""

    rejects: pa.Table
    """Examples whose image cannot be decoded: shard, key, reason."""
    counts: NDArray[np.int64]
    """How often each value of a byte comes in each channel of the others, int64 `[C, 256]`."""
    image_shape: tuple[int, int, int] | None
    """`[C, H, W]` of every image that can be decoded; None where there is none."""

    def usable(self, rows: pa.Table) -> pa.Table:
        """Returns the rows of an index whose image can be decoded."""
        bad = pa.compute.is_in(rows["key"], value_set=self.rejects["key"].combine_chunks())
        return rows.filter(pa.compute.invert(bad))


@dataclass(frozen=True)
class _Task:
    """One shard to be surveyed."""

    index: Index
    """Its shards are used; the examples are in `rows`."""
    rows: pa.Table
    channels: int
    transform: CropTransform | None
    url: str


def survey(
    index: Index,
    split: str,
    *,
    channels: int,
    transform: CropTransform | None,
    folder: str,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> Survey:
    """Looks at every image of a split once, unless that was done before.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        transform: Scales and crops, in its deterministic way; by default images stay as they are.
        folder: Where what is found is kept, a URL that all nodes reach.
        map_fn: Like `map`; looks at shards in parallel when given a parallel map.

    Raises:
        DataError: Images differ in size, or a shard is not what was indexed.
        IncompleteError: Storage does not answer.
    """
    name = digest([_FORMAT, DECODED_BY, index.digest, split, channels, transform])
    url = files.join(folder, f"{split}-{name}.parquet")
    if files.exists(url):
        return _read(url, channels)
    parts = files.join(folder, f"{split}-{name}.parts")
    rows = index.rows(split)
    bare = without_examples(index)
    tasks = [
        _Task(bare, part, channels, transform, files.join(parts, f"{number}.parquet"))
        for number, part in enumerate(_by_shard(rows))
    ]
    found = _merged(list(map_fn(_surveyed, tasks)), channels)
    _write(url, found)
    files.remove(parts)
    return found


def without_examples(index: Index) -> Index:
    """Returns an index that knows its shards alone, which is quickly sent to another process."""
    return Index(index.examples.schema.empty_table(), index.shards, REJECT_SCHEMA.empty_table())


def _by_shard(rows: pa.Table) -> list[pa.Table]:
    """Returns the rows of each shard; those of a shard lie together."""
    codes = rows["shard"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1, append=-1)).tolist()
    return [rows.slice(a, b - a) for a, b in itertools.pairwise(starts)]


def _surveyed(task: _Task) -> Survey:
    """Looks at a shard, unless that was done before; a plain function for every parallel map."""
    if files.exists(task.url):
        return _read(task.url, task.channels)
    rejects: list[dict[str, str]] = []
    counts = np.zeros((task.channels, 256), np.int64)
    shape: tuple[int, int, int] | None = None
    some: list[NDArray[np.uint8]] = []
    for row in read_rows(task.index, task.rows):
        try:
            image = decoded(row.image, task.channels, task.transform)
        except DataError as error:
            rejects.append({"shard": row.shard, "key": row.key, "reason": str(error)})
            continue
        shape = shape or tuple(image.shape)
        if image.shape != shape:
            raise _sizes_differ(shape, image.shape, row.key)
        some.append(image)
        if len(some) * image.nbytes >= _COUNTED:
            counts += _counted(some)
            some.clear()
    counts += _counted(some) if some else 0
    found = Survey(pa.Table.from_pylist(rejects, REJECT_SCHEMA), counts, shape)
    _write(task.url, found)
    return found


def _counted(images: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    stacked = np.stack(images)
    return byte_counts(stacked, range(len(stacked)), stacked.shape[1])


def _merged(parts: list[Survey], channels: int) -> Survey:
    shapes = {part.image_shape: part for part in parts if part.image_shape is not None}
    if len(shapes) > 1:
        first, other = list(shapes)[:2]
        raise _sizes_differ(first, other, "another shard")
    return Survey(
        pa.concat_tables([REJECT_SCHEMA.empty_table(), *(part.rejects for part in parts)]),
        sum((part.counts for part in parts), np.zeros((channels, 256), np.int64)),
        next(iter(shapes), None),
    )


def _sizes_differ(one: Any, other: Any, where: str) -> DataError:
    return DataError(
        f"images of a data set must have one size, got {one} and {other} in {where}. "
        "Name the size where the data are indexed, in a new --run: raygrad index (or prepare) "
        "--image-size N, raygrad run --data.image-size N."
    )


def _write(url: str, found: Survey) -> None:
    facts = {"counts": found.counts.tolist(), "image_shape": found.image_shape}
    metadata = {_FACTS: json.dumps(facts).encode()}
    write_table(url, found.rejects.replace_schema_metadata(metadata))


def _read(url: str, channels: int) -> Survey:
    table = read_table(url)
    facts = json.loads(table.schema.metadata[_FACTS])
    shape = None if facts["image_shape"] is None else tuple(facts["image_shape"])
    counts = np.array(facts["counts"], np.int64).reshape(channels, 256)
    return Survey(table.replace_schema_metadata(None), counts, shape)
