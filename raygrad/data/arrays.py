"""A split decoded once into one array that the processes of a node share: memory, or a file."""

import functools
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.decode import DECODED_BY, decode_image
from raygrad.data.decoded_cache import FORMAT, CacheEntry, Tables, user_folder
from raygrad.data.index import Index
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.reading import read_rows
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError
from raygrad.storage import files
from raygrad.storage.manifest import digest

_Allocate = Callable[[tuple[int, ...]], NDArray[np.uint8]]


@dataclass(frozen=True)
class ImageArrays:
    """Images of one size with their labels and keys."""

    images: NDArray[np.uint8]
    """Pixels `[N, C, H, W]`."""
    labels: NDArray[np.int64]
    """Classes `[N]`."""
    keys: Sequence[str]
    """Keys, N of them."""
    rejects: pa.Table
    """Examples whose image could not be decoded: shard, key, reason."""
    counts: NDArray[np.int64] | None = None
    """How often each value of a byte comes in each channel, `[C, 256]`; None where not counted."""


def load_arrays(
    index: Index,
    split: str,
    *,
    channels: int,
    shard: str | None = None,
    transform: CropTransform | None = None,
) -> ImageArrays:
    """Decodes every usable image of a split, or of one shard of it, on all CPUs of the process.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        shard: The name of one shard; by default all of them.
        transform: Scales and crops, in its deterministic way; by default images stay as they are.

    Returns:
        The images in the index's order, rejects left out: both together are the index's rows.

    Raises:
        DataError: Images differ in size, or a shard is not what was indexed.
        IncompleteError: Storage does not answer.
    """
    decode = functools.partial(decoded, channels=channels, transform=transform)
    found = _decoded(index, index.rows(split, shard), channels, decode, _in_memory, _Nowhere())
    images = np.empty((0, channels, 0, 0), np.uint8) if found.images is None else found.images
    tables = found.tables
    return _arrays(_closed_up(images, tables.used["row"].to_pylist()), tables)


def shared_arrays(
    index: Index,
    split: str,
    *,
    channels: int,
    folder: str,
    transform: CropTransform | None = None,
    most_bytes: int = 0,
) -> ImageArrays:
    """Returns a split as `load_arrays` does, its pixels in a file that all processes map.

    The first process of a node decodes, straight into the file, and the others wait for it; all of
    them then use the same pages of memory, and pages that do not fit it are read again from disk.
    After a process that died while it decoded, the next one goes on with the shards that are left.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        folder: A folder on the node's own disk or in its shared memory; each user has one within.
        transform: See `load_arrays`.
        most_bytes: As of `CacheEntry`.

    Raises:
        ResourceError: The disk has no room for the pixels, or the folder cannot be written to.
    """
    # An index tells images by their sizes: those of BMP or TIFF do not change with the pixels.
    versions = sorted(files.states(_shard_urls(index, split)).items())
    made_of = [FORMAT, DECODED_BY, index.digest, versions, split, channels, transform]
    entry = CacheEntry(user_folder(folder), f"{split}-{digest(made_of)}", most_bytes)
    with entry.locked():
        if not entry.is_complete():
            left = entry.begin()
            decode = functools.partial(decoded, channels=channels, transform=transform)
            rows = index.rows(split)
            found = _decoded(index, rows, channels, decode, entry.allocate, entry, left)
            if found.images is not None and len(found.images) > found.tables.used.num_rows:
                entry.is_closing_up()
                _closed_up(found.images, found.tables.used["row"].to_pylist())
            entry.finish(found.tables)
        entry.hold()
        return _arrays(*entry.read())


def _shard_urls(index: Index, split: str) -> list[str]:
    """Returns the shards that hold examples of a split."""
    return [index.shard_url(name) for name in index.counts(split)]


def _arrays(images: NDArray[np.uint8], tables: Tables) -> ImageArrays:
    used = tables.used
    labels, keys = used["label"].to_numpy(), used["key"].to_pylist()
    return ImageArrays(images, labels, keys, tables.rejects, tables.counts)


class _Pixels:
    """The one array that threads decode into, allocated when the first image shows its size.

    An array that is there already, with the images of shards that were kept, shows theirs.
    """

    def __init__(
        self, num_rows: int, allocate: _Allocate, images: NDArray[np.uint8] | None
    ) -> None:
        self._num_rows, self._allocate = num_rows, allocate
        self._lock = threading.Lock()
        self.images = images

    def put(self, at: int, image: NDArray[np.uint8], key: str) -> None:
        """Keeps an image `[C, H, W]` in its row."""
        with self._lock:
            if self.images is None:
                self.images = self._allocate((self._num_rows, *image.shape))
        if image.shape != self.images.shape[1:]:
            raise DataError(
                f"images of a data set in memory must have one size, got {self.images.shape[1:]} "
                f"and {image.shape} in {key}. Name the size where the data are indexed, in a new "
                "--run: raygrad index (or prepare) --image-size N, raygrad run --data.image-size N."
            )
        self.images[at] = image


_COUNTED = 2**20
"""Bytes that are counted at a time."""
_USED_SCHEMA = pa.schema([("key", pa.large_string()), ("label", pa.int64()), ("row", pa.int64())])


class _Nowhere:
    """Keeps no shard: what is decoded into memory goes with it."""

    def part(self, number: int) -> Tables | None:
        """Returns None: none was decoded before."""
        return None

    def keep(self, number: int, tables: Tables) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class _Decoded:
    """A whole split, its usable images where their rows are."""

    images: NDArray[np.uint8] | None
    """Pixels `[rows, C, H, W]`; None where not one could be decoded."""
    tables: Tables
    """All else, of all shards, in their order."""


def decoded(image: bytes, channels: int, transform: CropTransform | None) -> NDArray[np.uint8]:
    """Returns an encoded image as networks are given it, uint8 `[C, H, W]`.

    Raises:
        DataError: The bytes are no image that can be used.
    """
    if transform is None:
        return decode_image(image, channels=channels).transpose(2, 0, 1)
    return transform.score(image, channels=channels).transpose(2, 0, 1)


def _decoded(
    index: Index,
    rows: pa.Table,
    channels: int,
    decode: Callable[[bytes], NDArray[np.uint8]],
    allocate: _Allocate,
    kept: CacheEntry | _Nowhere,
    images: NDArray[np.uint8] | None = None,
) -> _Decoded:
    """Decodes the shards that are not kept already, on all CPUs of the process."""
    pixels = _Pixels(rows.num_rows, allocate, images)
    starts = _starts_of_shards(rows)

    def work(number: int) -> Tables:
        before = kept.part(number)
        if before is not None:
            return before
        first, last = starts[number], starts[number + 1]
        of_shard = rows.slice(first, last - first)
        found = _decoded_shard(index, of_shard, first, channels, decode, pixels)
        kept.keep(number, found)
        return found

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        parts = list(pool.map(work, range(len(starts) - 1)))
    return _Decoded(
        pixels.images,
        Tables(
            pa.concat_tables([_USED_SCHEMA.empty_table(), *(part.used for part in parts)]),
            pa.concat_tables([REJECT_SCHEMA.empty_table(), *(part.rejects for part in parts)]),
            sum((part.counts for part in parts), np.zeros((channels, 256), np.int64)),
        ),
    )


def _decoded_shard(
    index: Index,
    rows: pa.Table,
    first: int,
    channels: int,
    decode: Callable[[bytes], NDArray[np.uint8]],
    pixels: _Pixels,
) -> Tables:
    """Decodes the rows of one shard, which are the split's from `first` on."""
    used: list[dict[str, object]] = []
    rejects: list[dict[str, str]] = []
    for at, row in enumerate(read_rows(index, rows), first):
        try:
            image = decode(row.image)
        except DataError as error:
            rejects.append({"shard": row.shard, "key": row.key, "reason": str(error)})
            continue
        pixels.put(at, image, row.key)
        used.append({"key": row.key, "label": row.label, "row": at})
    if len(used) + len(rejects) != rows.num_rows:
        raise DataError(
            f"used and rejected must be all of the index, got {len(used)} and {len(rejects)} of "
            f"{rows.num_rows} in a shard. Read again."
        )
    table = pa.Table.from_pylist(used, _USED_SCHEMA)
    counts = byte_counts(pixels.images, table["row"].to_pylist(), channels)
    return Tables(table, pa.Table.from_pylist(rejects, REJECT_SCHEMA), counts)


def byte_counts(
    images: NDArray[np.uint8] | None, rows: Sequence[int], channels: int
) -> NDArray[np.int64]:
    """Returns how often each value of a byte comes in each channel of some rows, `[C, 256]`.

    Two bytes are counted at a time, as one number of 16 bits, which halves the work.
    """
    counts = np.zeros((channels, 256), np.int64)
    if images is None or not rows:
        return counts
    at_a_time = max(1, _COUNTED // math.prod(images.shape[2:]))
    for start in range(0, len(rows), at_a_time):
        for channel in range(channels):
            values = images[rows[start : start + at_a_time], channel].ravel()
            if values.size % 2:
                counts[channel, values[-1]] += 1
            pairs = np.bincount(values[: values.size // 2 * 2].view(np.uint16), minlength=2**16)
            counts[channel] += pairs.reshape(256, 256).sum(0) + pairs.reshape(256, 256).sum(1)
    return counts


def _starts_of_shards(rows: pa.Table) -> list[int]:
    """Returns where the rows of each shard begin, and how many rows there are."""
    codes = rows["shard"].combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.flatnonzero(np.diff(codes)) + 1
    return [0, *changes.tolist(), rows.num_rows] if rows.num_rows else [0]


def _closed_up(images: NDArray[np.uint8], used: list[int]) -> NDArray[np.uint8]:
    """Moves images over the gaps that rejects left, in place; returns those in use."""
    for to, at in enumerate(used):
        if to != at:
            images[to] = images[at]
    return images[: len(used)]


def _in_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)
