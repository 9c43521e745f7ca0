"""From an encoded photograph to the square of pixels that an ImageNet network sees."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raygrad.data.decode import MAX_PIXELS, decode_image
from raygrad.errors import ConfigError
from raygrad.selection.keyed_random import random_bits

_RATIO = 4 / 3
"""The sides of a random part differ by this factor at most."""


@dataclass(frozen=True)
class CropTransform:
    """Scales to 256x256 and crops 224x224: at random to train, in the centre to score.

    The transform of "Are All Training Examples Created Equal?" (arXiv 1811.12569) for ImageNet.
    Scaling is bilinear with antialiasing, as torchvision scales a Pillow image. A JPEG of at
    least four times the size is decoded at a reduced size first.
    """

    resize: int = 256
    """The size that is scaled to, in pixels."""
    crop: int = 224
    """The side of the square that is cut out, in pixels."""
    keep_aspect: bool = False
    """Scale the shorter side and keep the aspect, torchvision's way, not both sides."""

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ConfigError(f"crop must be in 1..resize={self.resize}, got {self.crop}.")

    @classmethod
    def to_size(cls, image_size: int) -> "CropTransform":
        """Returns the transform to squares of a size, in the paper's proportion of 256 to 224."""
        return cls(resize=round(image_size * 8 / 7), crop=image_size)

    def score(
        self, data: bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS
    ) -> NDArray[np.uint8]:
        """Returns the centre of an encoded image, uint8 `[crop, crop, channels]`.

        Raises:
            DataError: The bytes are no image that can be used.
        """
        image = self._scaled(data, channels, max_pixels)
        top = round((image.height - self.crop) / 2.0)
        left = round((image.width - self.crop) / 2.0)
        return self._cut(image, top, left, channels)

    def train(
        self,
        data: bytes,
        *,
        seed: int,
        epoch: int,
        key_hash: int,
        channels: int = 3,
        max_pixels: int = MAX_PIXELS,
    ) -> NDArray[np.uint8]:
        """Returns a random square of an encoded image, mirrored half of the time.

        Place and mirroring are a function of (seed, epoch, key hash), so they do not depend on
        which worker reads the example, or when.

        Returns:
            Pixels, uint8 `[crop, crop, channels]`.

        Raises:
            DataError: The bytes are no image that can be used.
        """
        image = self._scaled(data, channels, max_pixels)
        of_epoch = int(random_bits(seed, np.array([epoch], np.uint64))[0])
        bits = int(random_bits(of_epoch, np.array([key_hash], np.uint64))[0])
        # Separate bits for each choice; 24 bits make an uneven remainder too small to matter.
        top = (bits & 0xFFFFFF) % (image.height - self.crop + 1)
        left = (bits >> 24 & 0xFFFFFF) % (image.width - self.crop + 1)
        pixels = self._cut(image, top, left, channels)
        return np.ascontiguousarray(pixels[:, ::-1]) if bits >> 63 else pixels

    def resized_crop(
        self,
        data: bytes,
        *,
        scale: float,
        seed: int,
        epoch: int,
        key_hash: int,
        channels: int = 3,
        max_pixels: int = MAX_PIXELS,
    ) -> NDArray[np.uint8]:
        """Returns a random part of the stored photograph, scaled to the square; not mirrored.

        A part of `scale` or more of the area, its sides in a ratio of 3/4 to 4/3 (Szegedy et al.
        2015, arXiv 1409.4842, section 6), as torchvision draws one: of ten draws the first that
        lies within the photograph, else its centre. It is a function of (seed, epoch, key hash),
        as of `train`.

        Args:
            data: The encoded image.
            scale: The smallest share of the area, in (0, 1].
            seed: As of `train`.
            epoch: As of `train`.
            key_hash: As of `train`.
            channels: 1 or 3.
            max_pixels: As of `decode_image`.

        Returns:
            Pixels, uint8 `[crop, crop, channels]`.

        Raises:
            DataError: The bytes are no image that can be used.
        """
        pixels = decode_image(data, channels=channels, max_pixels=max_pixels)
        image = Image.fromarray(
            np.ascontiguousarray(pixels.squeeze(2) if channels == 1 else pixels)
        )
        generator = np.random.default_rng([seed, epoch, key_hash])
        left, top, width, height = _random_part(image.width, image.height, scale, generator)
        box = (left, top, left + width, top + height)
        cut = image.resize((self.crop, self.crop), Image.Resampling.BILINEAR, box=box)
        return np.asarray(cut).reshape(self.crop, self.crop, channels)

    def _scaled(self, data: bytes, channels: int, max_pixels: int) -> Image.Image:
        pixels = decode_image(
            data, channels=channels, max_pixels=max_pixels, at_least=2 * self.resize
        )
        image = Image.fromarray(
            np.ascontiguousarray(pixels.squeeze(2) if channels == 1 else pixels)
        )
        size = (self.resize, self.resize)
        if self.keep_aspect:
            short, long = sorted(image.size)
            other = int(self.resize * long / short)
            size = (self.resize, other) if image.width <= image.height else (other, self.resize)
        return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)

    def _cut(self, image: Image.Image, top: int, left: int, channels: int) -> NDArray[np.uint8]:
        pixels = np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))
        return pixels.reshape(self.crop, self.crop, channels)


def _random_part(
    width: int, height: int, scale: float, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Returns left, top, width and height of a random part of an image."""
    for _ in range(10):
        area = width * height * generator.uniform(scale, 1.0)
        ratio = math.exp(generator.uniform(-math.log(_RATIO), math.log(_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = generator.integers(0, [width - w + 1, height - h + 1]).tolist()
            return left, top, w, h
    w = min(width, max(1, round(height * _RATIO)))
    h = min(height, max(1, round(width * _RATIO)))
    return (width - w) // 2, (height - h) // 2, w, h
