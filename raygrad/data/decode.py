"""From the bytes of an image to pixels: one function for scoring and training.

Pillow reads the header, so that content and not a name decides what a file is, and nothing is
decoded before its pixels are counted. Where simplejpeg is installed (``pip install
raygrad[jpeg]``) it decodes plain JPEGs, 1.3 to 1.8 times as fast as Pillow (see the benchmark
records); everything else, and any JPEG with a flaw, is Pillow's. Both are libjpeg-turbo and give
the same pixels, those of torchvision's own data sets, so no result depends on which is there.
"""

import io
import re
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features
from PIL import __version__ as pillow_version

from raygrad.data.signatures import IMAGE_EXTENSIONS, kind_of
from raygrad.errors import DataError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_PIXELS = 64 * 2**20
DECODED_BY = f"Pillow {pillow_version}, libjpeg {features.version('jpg')}"
"""What pixels that are kept were decoded by."""
_MODES = {1: "L", 3: "RGB"}
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_READABLE = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_READ_KINDS = tuple(IMAGE_EXTENSIONS)
_SINGULAR = re.compile(r" ?\([^()]*\)| ?<[^<>]*>| ?b['\"].*['\"]| ?\b(0x[0-9a-f]+|\d+)\b")
"""What a decoder says of one file alone: counts, addresses and bytes."""

# A bomb is refused below by its pixels, so Pillow's own warning about one is noise.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# What is wrong with a TIFF's tags, where its pixels can be had all the same, is not for the user.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")


def decode_image(
    data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> NDArray[np.uint8]:
    """Returns the pixels of a JPEG, PNG, WebP, GIF, BMP or TIFF, told by content and not by name.

    Grey, CMYK, palettes, 16-bit and alpha are converted: 16-bit values are divided by 256, and
    alpha is dropped, not blended. A rotation stated in EXIF is ignored, as torchvision's data
    sets ignore it. Of an animation the first picture is taken.

    Args:
        data: The encoded image.
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma); what the file holds is converted.
        max_pixels: More than this is refused before anything is decoded.
        at_least: A large JPEG may be decoded at a half, a quarter or an eighth of its size, as
            long as neither side becomes less than this; by default it is not.

    Returns:
        Pixels, uint8 `[H, W, channels]`.

    Raises:
        DataError: The bytes are no image that can be used; the text is the reason.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            full_size = image.size
            if full_size[0] * full_size[1] > max_pixels:
                raise DataError(
                    f"an image must have at most {max_pixels} pixels, "
                    f"got {full_size[0]} x {full_size[1]}."
                )
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            plain = ("RGB", "L") if channels == 3 else ("L",)
            if image.format == "JPEG" and image.mode in plain and image.size == full_size:
                pixels = _decode_plain_jpeg(data, channels)
                if pixels is not None:
                    return pixels
            pixels = np.asarray(_converted(image, _MODES[channels]))
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise nearly every kind of error on broken bytes, and whatever they hold must
        # become a reject with its reason and not the end of a job.
        raise DataError(
            f"an image must be a whole {_READABLE}, got {_reason(data, error)}."
        ) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_plain_jpeg(data: bytes, channels: int) -> NDArray[np.uint8] | None:
    """Returns the pixels of a JPEG without any flaw, None where Pillow has to decide."""
    if simplejpeg is None:
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", strict=True)
    except ValueError:
        return None


def _reason(data: bytes, error: Exception) -> str:
    """Returns what is wrong with an image: the same words for the same flaw, to be grouped."""
    kind = kind_of(data)
    if isinstance(error, UnidentifiedImageError) and kind not in _READ_KINDS:
        return kind
    flaw = _SINGULAR.sub("", (str(error).splitlines() or [type(error).__name__])[0])
    if isinstance(error, UnidentifiedImageError):
        flaw = "its header is broken"
    return f"{kind}: {flaw[:200]}"


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise DataError("an image must have pixels of 8 or 16 bits, got floating point.")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        values = np.asarray(image)
        if values.size and not 0 <= values.min() <= values.max() < 2**16:
            raise DataError("an image must have pixels of 8 or 16 bits, got more.")
        values = values.astype(np.uint16)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)
