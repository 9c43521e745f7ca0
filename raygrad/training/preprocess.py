"""From stored pixels to what a network sees."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 4096
"""Images whose bytes are counted at a time; the counts are exact, whatever it is."""


@dataclass(frozen=True)
class Normalize:
    """Scales bytes to [0, 1] and normalises each channel; part of what a checkpoint stands for."""

    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]."""
    std: tuple[float, ...]
    """Per channel, of pixels in [0, 1]; never 0."""

    def __call__(self, images: Tensor) -> Tensor:
        """Returns float32 images `[B, C, H, W]` from uint8 images of that shape."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images.float().div_(255) - mean) / std


def channel_statistics(images: Tensor) -> Normalize:
    """Returns the normalisation that gives these uint8 images `[N, C, H, W]` mean 0 and std 1.

    Computed from each channel's histogram of byte values, so it is exact and takes no float copy
    of the images. A constant channel gets standard deviation 1.
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for channel in range(images.shape[1]):
        for chunk in images[:, channel].split(CHUNK):
            counts[channel] += torch.bincount(chunk.flatten(), minlength=256)
    return counted_statistics(counts)


def counted_statistics(counts: Tensor) -> Normalize:
    """Returns the same from counts of each value of a byte, int64 `[C, 256]`."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for of_channel in counts.double():
        share = of_channel / of_channel.sum()
        m = float((share * values).sum())
        s = float((share * (values - m) ** 2).sum().sqrt())
        mean.append(m)
        std.append(s or 1.0)
    return Normalize(tuple(mean), tuple(std))
