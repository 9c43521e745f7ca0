"""A split that fits in memory, decoded once into one array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data import storage
from raygrad.data.decode import decode_image
from raygrad.data.index import Index
from raygrad.data.index_rows import REJECT_SCHEMA
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
    index: Index, split: str, *, channels: int, shard: str | None = None
) -> ImageArrays:
    """Decodes every usable image of a split, or of one shard of it.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        shard: The name of one shard; by default all of them.

    Returns:
        The images in the index's order, rejects left out.

    Raises:
        DataError: Images differ in size.
    """
    rows = index.rows(split, shard)
    images, labels, keys, rejects = [], [], [], []
    for name in dict.fromkeys(rows["shard"].to_pylist()):
        with storage.open_input(index.shard_url(name)) as stream:
            for row in index.rows(split, name).to_pylist():
                try:
                    data = stream.read_at(row["size"], row["offset"])
                    pixels = decode_image(data, channels=channels)
                except DataError as error:
                    rejects.append({"shard": name, "key": row["key"], "reason": str(error)})
                    continue
                images.append(pixels.transpose(2, 0, 1))
                labels.append(row["label"])
                keys.append(row["key"])
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(
            f"images of a data set in memory must have one size, got {sorted(shapes)[:3]}."
        )
    stacked = np.stack(images) if images else np.empty((0, channels, 0, 0), np.uint8)
    return ImageArrays(
        stacked,
        np.array(labels, np.int64),
        keys,
        pa.Table.from_pylist(rejects, REJECT_SCHEMA),
    )
