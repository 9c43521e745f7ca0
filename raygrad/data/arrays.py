"""A split that fits in memory, decoded once into one array that the processes of a node share."""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data import storage
from raygrad.data.decode import decode_image
from raygrad.data.index import Index
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.manifest import digest
from raygrad.data.reading import read_rows
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError


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
    """Decodes every usable image of a split, or of one shard of it.

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
    rows = index.rows(split, shard)
    images = np.empty((0, channels, 0, 0), np.uint8)
    labels: list[int] = []
    keys: list[str] = []
    rejects: list[dict[str, str]] = []
    for row in read_rows(index, rows):
        try:
            if transform is None:
                pixels = decode_image(row.image, channels=channels)
            else:
                pixels = transform.score(row.image, channels=channels)
        except DataError as error:
            rejects.append({"shard": row.shard, "key": row.key, "reason": str(error)})
            continue
        image = pixels.transpose(2, 0, 1)
        if not keys:  # one allocation, so that the split is never in memory twice
            images = np.empty((rows.num_rows, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(
                f"images of a data set in memory must have one size, got {images.shape[1:]} and "
                f"{image.shape} in {row.key}. Do: --data.image-size."
            )
        images[len(keys)] = image
        labels.append(row.label)
        keys.append(row.key)
    if len(keys) + len(rejects) != rows.num_rows:
        raise DataError(
            f"used and rejected must be all of the index, got {len(keys)} and {len(rejects)} "
            f"of {rows.num_rows} in {split}. Read again."
        )
    table = pa.Table.from_pylist(rejects, REJECT_SCHEMA)
    return ImageArrays(images[: len(keys)], np.array(labels, np.int64), keys, table)


def shared_arrays(
    index: Index,
    split: str,
    *,
    channels: int,
    folder: str,
    transform: CropTransform | None = None,
) -> ImageArrays:
    """Returns a split as `load_arrays` does, its pixels in a file that all processes map.

    The first process of a node decodes and the others wait for it; all of them then use the same
    pages of memory. A process that dies while it decodes leaves nothing behind.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        folder: A folder on the node's own disk or in its shared memory.
        transform: See `load_arrays`.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = f"{split}-{digest([index.digest, split, channels, transform])}"
    pixels, rest = (Path(folder, f"{name}.{ending}") for ending in ("npy", "json"))
    with open(Path(folder, f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system gives it back should the process die
        if not rest.exists():
            arrays = load_arrays(index, split, channels=channels, transform=transform)
            _write_shared(arrays, pixels, rest)
    stored = json.loads(rest.read_text())
    return ImageArrays(
        np.load(pixels, mmap_mode="r") if stored["keys"] else np.load(pixels),
        np.array(stored["labels"], np.int64),
        stored["keys"],
        pa.Table.from_pylist(stored["rejects"], REJECT_SCHEMA),
    )


def _write_shared(arrays: ImageArrays, pixels: Path, rest: Path) -> None:
    temporary = pixels.with_suffix(".tmp")
    with open(temporary, "wb") as stream:
        np.save(stream, arrays.images)
    os.replace(temporary, pixels)
    values = {
        "labels": arrays.labels.tolist(),
        "keys": list(arrays.keys),
        "rejects": arrays.rejects.to_pylist(),
    }
    storage.write_bytes(str(rest), json.dumps(values).encode())  # last: it says all is there
