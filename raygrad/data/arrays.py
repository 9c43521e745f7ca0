"""A split decoded once into one array that the processes of a node share: memory, or a file."""

import fcntl
import functools
import math
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.decode import decode_image
from raygrad.data.index import Index
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.reading import read_rows
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError, ResourceError
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
    decode = functools.partial(_decode, channels=channels, transform=transform)
    return _decoded(index, index.rows(split, shard), channels, decode, _in_memory)


def shared_arrays(
    index: Index,
    split: str,
    *,
    channels: int,
    folder: str,
    transform: CropTransform | None = None,
) -> ImageArrays:
    """Returns a split as `load_arrays` does, its pixels in a file that all processes map.

    The first process of a node decodes, straight into the file, and the others wait for it; all of
    them then use the same pages of memory, and pages that do not fit it are read again from disk. A
    process that dies while it decodes leaves a file that the next one overwrites.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        folder: A folder on the node's own disk or in its shared memory.
        transform: See `load_arrays`.

    Raises:
        ResourceError: The disk has no room for the pixels.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = f"{split}-{digest([index.digest, split, channels, transform])}"
    pixels, facts = (Path(folder, f"{name}.{ending}") for ending in ("npy", "arrow"))
    with open(Path(folder, f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system gives it back should the process die
        if not facts.exists():
            decode = functools.partial(_decode, channels=channels, transform=transform)
            mapped = functools.partial(_mapped, pixels)
            _keep_facts(_decoded(index, index.rows(split), channels, decode, mapped), facts)
    return _read_shared(pixels, facts)


class _Pixels:
    """The one array that threads decode into, allocated when the first image shows its size."""

    def __init__(self, num_rows: int, allocate: _Allocate) -> None:
        self._num_rows, self._allocate = num_rows, allocate
        self._lock = threading.Lock()
        self.images: NDArray[np.uint8] | None = None

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


@dataclass
class _Part:
    """What came of one shard's rows."""

    rows: list[int] = field(default_factory=list)
    """Where the usable images are in the array, ascending."""
    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)


def _decode(image: bytes, *, channels: int, transform: CropTransform | None) -> NDArray[np.uint8]:
    if transform is None:
        return decode_image(image, channels=channels)
    return transform.score(image, channels=channels)


def _decoded(
    index: Index,
    rows: pa.Table,
    channels: int,
    decode: Callable[[bytes], NDArray[np.uint8]],
    allocate: _Allocate,
) -> ImageArrays:
    pixels = _Pixels(rows.num_rows, allocate)
    starts = _starts_of_shards(rows)

    def work(number: int) -> _Part:
        first, last = starts[number], starts[number + 1]
        part = _Part()
        for at, row in enumerate(read_rows(index, rows.slice(first, last - first)), first):
            try:
                image = decode(row.image)
            except DataError as error:
                part.rejects.append({"shard": row.shard, "key": row.key, "reason": str(error)})
                continue
            pixels.put(at, image.transpose(2, 0, 1), row.key)
            part.rows.append(at)
            part.keys.append(row.key)
            part.labels.append(row.label)
        if len(part.keys) + len(part.rejects) != last - first:
            raise DataError(
                f"used and rejected must be all of the index, got {len(part.keys)} and "
                f"{len(part.rejects)} of {last - first} in a shard. Read again."
            )
        return part

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        parts = list(pool.map(work, range(len(starts) - 1)))
    images = np.empty((0, channels, 0, 0), np.uint8) if pixels.images is None else pixels.images
    return ImageArrays(
        _closed_up(images, [row for part in parts for row in part.rows]),
        np.array([label for part in parts for label in part.labels], np.int64),
        [key for part in parts for key in part.keys],
        pa.Table.from_pylist([r for part in parts for r in part.rejects], REJECT_SCHEMA),
    )


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


def _mapped(pixels: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Allocates an array in a file, if the disk holds it."""
    needed, free = math.prod(shape), shutil.disk_usage(pixels.parent).free
    pixels.unlink(missing_ok=True)
    if needed > free:
        raise ResourceError(
            f"decoded images of {needed / 1e9:.1f} GB must fit the node's disk, got "
            f"{free / 1e9:.1f} GB free in {pixels.parent}. Name a larger one: --data.cache-dir."
        )
    return np.lib.format.open_memmap(pixels, "w+", np.uint8, shape)


def _keep_facts(arrays: ImageArrays, path: Path) -> None:
    """Writes all but the pixels, last and atomically: it says that the pixels are there."""
    if isinstance(arrays.images, np.memmap):
        arrays.images.flush()
    used = pa.table({"key": pa.array(arrays.keys, pa.large_string()), "label": arrays.labels})
    temporary = path.with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as stream:
        for table in (used, arrays.rejects):
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
    os.replace(temporary, path)


def _read_shared(pixels: Path, facts: Path) -> ImageArrays:
    with pa.OSFile(str(facts)) as stream:
        used = pa.ipc.open_stream(stream).read_all()
        rejects = pa.ipc.open_stream(stream).read_all()
    if pixels.exists():
        images = np.load(pixels, mmap_mode="r")[: used.num_rows]
    else:
        images = np.empty((0, 0, 0, 0), np.uint8)
    return ImageArrays(images, used["label"].to_numpy(), used["key"].to_pylist(), rejects)
