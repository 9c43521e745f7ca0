"""From the bytes of an image to pixels: one function for scoring and training."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from raygrad.errors import DataError

MAX_PIXELS = 64 * 2**20
_MODES = {1: "L", 3: "RGB"}


def decode_image(
    data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Returns the pixels of a JPEG or PNG, told by content and not by name.

    Args:
        data: The encoded image.
        channels: 3 for RGB, 1 for grey; what the file holds is converted.
        max_pixels: More than this is refused before anything is decoded.

    Returns:
        Pixels, uint8 `[H, W, channels]`.

    Raises:
        DataError: The bytes are no image that can be used; the text is the reason.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"an image must have at most {max_pixels} pixels, "
                    f"got {image.width} x {image.height}."
                )
            pixels = np.asarray(image.convert(_MODES[channels]))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"an image must be a whole JPEG or PNG, got {error}.") from error
    return pixels.reshape(*pixels.shape[:2], channels)
