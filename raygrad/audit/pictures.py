"""What a picture is known by: a digest of its pixels, a perceptual descriptor, and plain facts."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

SIDE = 32
"""Pictures are looked at as squares of so many pixels."""

FREQUENCIES = 8
"""The lowest frequencies of a picture along each side, which scaling and compression keep."""

_GRID = 64
"""Colours are counted on a grid of so many pixels a side at most."""

_NEAR = 8
"""Levels of grey within which pixels are of one colour."""


@dataclass(frozen=True)
class PictureFacts:
    """What is kept of one picture."""

    digest: bytes
    """A hash of size and pixels: equal for equal pixels, whatever file they came in."""
    descriptor: NDArray[np.float32]
    """The lowest frequencies of its greys without their mean, ``[FREQUENCIES**2 - 1]``."""
    small: NDArray[np.uint8]
    """It as a small square of greys, ``[SIDE, SIDE]``."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    brightness: float
    """Mean grey, in 0..255."""
    contrast: float
    """Standard deviation of the greys, in 0..127.5."""
    one_colour: float
    """The share of pixels within a few levels of the commonest, in 0..1."""


def picture_facts(pixels: NDArray[np.uint8]) -> PictureFacts:
    """Returns what a picture is known by.

    The descriptor is what the perceptual hash of Zauner (2010) takes the signs of: the lowest
    frequencies of a discrete cosine transform of the picture as a small grey square.

    Args:
        pixels: uint8 ``[H, W, C]``, C 1 or 3.
    """
    height, width, channels = pixels.shape
    sha = hashlib.blake2b(f"{height} {width} {channels}".encode(), digest_size=16)
    sha.update(pixels.tobytes())
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    greys = image.convert("L")
    # Smoothly: by whole pixels, a picture of few would change much where one of them is cropped.
    small = np.asarray(greys.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    grey = np.asarray(greys.resize((SIDE, SIDE), Image.Resampling.BOX)).astype(np.float64)
    frequencies = dctn(small.astype(np.float64), norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[
        1:
    ]
    return PictureFacts(
        sha.digest(),
        frequencies.astype(np.float32),
        small,
        width,
        height,
        float(grey.mean()),
        float(grey.std()),
        _share_of_main_colour(pixels),
    )


def _share_of_main_colour(pixels: NDArray[np.uint8]) -> float:
    """Returns the share of pixels that are near the commonest colour in every channel."""
    rows, columns = (-(-side // _GRID) for side in pixels.shape[:2])
    flat = pixels[::rows, ::columns].reshape(-1, pixels.shape[2])
    # By steps of the tolerance: the commonest cell's middle is near its commonest colour.
    codes = np.zeros(len(flat), np.int32)
    for channel in range(flat.shape[1]):
        codes = codes * 32 + flat[:, channel] // _NEAR
    main = np.median(flat[codes == np.bincount(codes).argmax()], axis=0)
    return float((np.abs(flat - main) <= _NEAR).all(axis=1).mean())
