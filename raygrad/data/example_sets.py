"""Examples before they are in shards: sets that are cut, sent to a worker, and read only there."""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raygrad.data.shard_scan import IMAGE_EXTENSIONS, OTHER_IMAGE_EXTENSIONS
from raygrad.data.signatures import HEAD_BYTES, kind_of
from raygrad.data.signatures import IMAGE_EXTENSIONS as ENDINGS_OF_KINDS
from raygrad.selection.keyed_random import key_hashes

_SAMPLE = 256
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPES = {1: 0, 3: 2}


@dataclass(frozen=True)
class Example:
    """One training item, as its shard will hold it."""

    key: str
    """Unique in the data set."""
    image: bytes
    """The encoded image."""
    extension: str
    """Of the image's member name, such as png."""
    label: int
    """The class."""
    extra: tuple[tuple[str, bytes], ...] = ()
    """Further members: extension and content."""


class ExampleSet(Protocol):
    """Examples of a split, whose images are read or encoded when they are asked for."""

    def __len__(self) -> int:
        """The number of examples."""

    def __iter__(self) -> Iterator[Example]:
        """Yields the examples in order."""

    def keys(self) -> Sequence[str]:
        """Returns the keys in order."""

    def image_bytes(self) -> int:
        """Returns about how many bytes all images have."""

    def fingerprint(self) -> str:
        """Returns a hash of all that decides what is written (of files, their sizes only)."""

    def take(self, positions: NDArray[np.int64]) -> "ExampleSet":
        """Returns the examples at `positions`, in that order, holding no more than these."""


@dataclass(frozen=True)
class ArrayExamples:
    """Images that are in memory as pixels; each is encoded as PNG when it is asked for."""

    prefix: str
    """Of every key."""
    pixels: NDArray[np.uint8]
    """`[N, H, W]` or `[N, H, W, 3]`."""
    labels: NDArray[np.int64]
    """Classes `[N]`."""
    numbers: NDArray[np.int64]
    """`[N]`; the number of each in the original data set, the other half of its key."""

    in_order = False

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Example]:
        for key, pixels, label in zip(self.keys(), self.pixels, self.labels.tolist(), strict=True):
            yield Example(key, encode_png(pixels), "png", label)

    def keys(self) -> list[str]:
        """Returns the keys: the prefix and the number in the original data set."""
        return [f"{self.prefix}-{number:06d}" for number in self.numbers.tolist()]

    def image_bytes(self) -> int:
        """Returns the size of all PNGs, from a sample of them."""
        sample = self.pixels[:: max(1, len(self) // _SAMPLE)]
        return len(self) * sum(len(encode_png(one)) for one in sample) // max(1, len(sample))

    def fingerprint(self) -> str:
        """Returns a hash of keys, labels and pixels."""
        return content_hash(self.keys(), self.labels, self.pixels)

    def take(self, positions: NDArray[np.int64]) -> "ArrayExamples":
        """Returns a copy of the examples at `positions`."""
        return ArrayExamples(
            self.prefix, self.pixels[positions], self.labels[positions], self.numbers[positions]
        )


@dataclass(frozen=True)
class FileExamples:
    """Images that are files; their bytes are copied as they are."""

    paths: tuple[str, ...]
    """The files, N of them."""
    names: tuple[str, ...]
    """The keys, N of them."""
    labels: NDArray[np.int64]
    """Classes `[N]`."""
    sizes: NDArray[np.int64]
    """`[N]`, in bytes."""
    offsets: NDArray[np.int64] | None = None
    """`[N]`; where each image begins in its file, such as a tar; by default files are images."""

    in_order = False

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Example]:
        for at, (path, key, label) in enumerate(
            zip(self.paths, self.names, self.labels.tolist(), strict=True)
        ):
            with open(path, "rb", buffering=0) as stream:
                if self.offsets is None:
                    image = stream.read()
                else:
                    image = os.pread(stream.fileno(), int(self.sizes[at]), int(self.offsets[at]))
            yield Example(key, image, _extension(path, image), label)

    def keys(self) -> tuple[str, ...]:
        """Returns the keys."""
        return self.names

    def image_bytes(self) -> int:
        """Returns the size of all files."""
        return int(self.sizes.sum())

    def newest_ns(self) -> int:
        """Returns when the file that was changed last was changed, in nanoseconds since 1970."""
        return max((os.stat(path).st_mtime_ns for path in set(self.paths)), default=0)

    def fingerprint(self) -> str:
        """Returns a hash of keys, labels and the files' sizes."""
        return content_hash(self.names, self.labels, self.sizes)

    def take(self, positions: NDArray[np.int64]) -> "FileExamples":
        """Returns the examples at `positions`."""
        at = positions.tolist()
        return FileExamples(
            tuple(self.paths[one] for one in at),
            tuple(self.names[one] for one in at),
            self.labels[positions],
            self.sizes[positions],
            None if self.offsets is None else self.offsets[positions],
        )


def _extension(path: str, image: bytes) -> str:
    """Returns the ending of an image's member: its file's, or its kind's where that says none."""
    ending = Path(path).suffix[1:].lower()
    if ending in (*IMAGE_EXTENSIONS, *OTHER_IMAGE_EXTENSIONS):
        return ending
    return ENDINGS_OF_KINDS.get(kind_of(image[:HEAD_BYTES]), "jpg")


def content_hash(keys: Sequence[str], *arrays: NDArray[np.generic]) -> str:
    """Returns a hash of keys and of the values of arrays."""
    hasher = hashlib.blake2b(key_hashes(keys).tobytes(), digest_size=16)
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Returns an image `[H, W]` or `[H, W, 3]` as PNG, every row with filter 0.

    Written out here because an image of 28x28 pixels takes Pillow more than twice as long.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
