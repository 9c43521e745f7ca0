"""Small pictures of a few examples, read by range from the shards and never by streaming them."""

import base64
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from raygrad.data.decode import decode_image
from raygrad.data.index import Index
from raygrad.data.reading import read_rows
from raygrad.errors import DataError, IncompleteError

SMALL_SIDE = 48  # up to here an image is shown as it is, each pixel a square
SIDE = 96  # longer sides are scaled down to this
_QUALITY = 72
_READERS = 16


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of one example.

    Attributes:
        pixels: uint8 ``[H, W]`` or ``[H, W, 3]``.
        encoded: The picture as a PNG (small originals) or JPEG file.
        kind: ``"png"`` or ``"jpeg"``.
    """

    pixels: np.ndarray
    encoded: bytes
    kind: str

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` address."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.encoded).decode('ascii')}"


def make_thumbnail(pixels: np.ndarray) -> Thumbnail:
    """Scales an image down to at most ``SIDE`` pixels a side and encodes it.

    Args:
        pixels: uint8 ``[H, W]`` or ``[H, W, 3]``.
    """
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    if max(image.size) <= SMALL_SIDE:
        image.save(out, "PNG", optimize=True)
        return Thumbnail(pixels, out.getvalue(), "png")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return Thumbnail(np.asarray(image), out.getvalue(), "jpeg")


def _read_shard(
    index: Index, rows: pa.Table, channels: int
) -> tuple[list[tuple[str, Thumbnail]], str | None]:
    out: list[tuple[str, Thumbnail]] = []
    try:
        for example in read_rows(index, rows):
            pixels = decode_image(example.image, channels=channels)
            out.append((example.key, make_thumbnail(pixels[:, :, 0] if channels == 1 else pixels)))
    except (OSError, DataError, IncompleteError) as error:
        # A shard may have been moved or replaced since; the report goes on without its images.
        return out, str(error)
    return out, None


def read_thumbnails(
    index: Index, keys: Iterable[str], channels: int = 3
) -> tuple[Mapping[str, Thumbnail], list[str]]:
    """Thumbnails of the named examples, by key, read by ranges of their shards.

    Args:
        index: Where every example is.
        keys: Which examples; those that the index does not know are left out.
        channels: 1 or 3, as the data set says.

    Returns:
        The thumbnails, and for each shard that could not be read to the end, why.
    """
    wanted = pa.array(sorted(set(keys)), pa.string())
    rows = index.examples.filter(pc.is_in(index.examples["key"], value_set=wanted))
    found: dict[str, Thumbnail] = {}
    failures = []
    with ThreadPoolExecutor(_READERS) as pool:
        jobs = [
            pool.submit(_read_shard, index, rows.filter(pc.equal(rows["shard"], name)), channels)
            for name in sorted(rows["shard"].unique().to_pylist())
        ]
        for job in jobs:
            thumbnails, failure = job.result()
            found.update(thumbnails)
            failures += [failure] if failure else []
    return found, failures
