"""Data sets that raygrad can write as shards, by name."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raygrad.errors import ConfigError, unknown_name

DIGITS_TEST_FRACTION = 0.2


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


@dataclass(frozen=True)
class Source:
    """A data set before it is written: its examples by split, and what they are."""

    train: list[Example]
    """Training examples, validation included."""
    test: list[Example]
    """Test examples."""
    classes: tuple[str, ...]
    """The name of each class."""
    channels: int
    """Colour channels of the images."""


def digits(data_dir: str | None) -> Source:
    """The 1,797 handwritten digits that scikit-learn ships: 8x8 pixels, 17 levels of grey.

    A stratified fifth, chosen once and for all, is the test split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    del data_dir  # they come with scikit-learn
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(pixels)),
        test_size=DIGITS_TEST_FRACTION,
        random_state=0,
        stratify=bunch.target,
    )

    def examples(positions: NDArray[np.int64]) -> list[Example]:
        return [
            Example(f"digits-{at:06d}", encode_png(pixels[at]), "png", int(bunch.target[at]))
            for at in sorted(positions.tolist())
        ]

    classes = tuple(str(name) for name in bunch.target_names)
    return Source(examples(train), examples(test), classes, channels=1)


SOURCES: dict[str, Callable[[str | None], Source]] = {"digits": digits}
"""Data sets by name; each takes the folder of its own files."""


def check_source(name: str) -> None:
    """Raises ConfigError unless the name is of a known source."""
    if name not in SOURCES:
        raise ConfigError(unknown_name("source", name, SOURCES))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Returns an image `[H, W]` or `[H, W, 3]` as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
