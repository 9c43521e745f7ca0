"""Random shifts and flips of training images, a function of (seed, step) alone."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raygrad.config import TrainConfig

# Keeps the augmentation's random numbers apart from those of the data order, which share a seed.
_STREAM = 0xA06


def augment(
    images: Tensor, config: TrainConfig, *, seed: int, step: int, rows: NDArray[np.int64], of: int
) -> Tensor:
    """Returns the images moved and mirrored at random, as the recipe says.

    A move by up to p pixels with black moving in is the crop from an image padded by p that is
    usual for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2). Which image is moved how far
    follows from the seed, the step and the image's row of the global batch: neither the number of
    workers nor a restart changes it.

    Args:
        images: uint8 ``[B, C, H, W]``.
        config: `augment` and `augment_pixels` are used.
        seed: The seed of the data order.
        step: The step, counted over all epochs.
        rows: The images' rows in the global batch, ``[B]``.
        of: Rows of the global batch.

    Returns:
        uint8 ``[B, C, H, W]``; the very same tensor where the recipe says ``none``.
    """
    if config.augment == "none":
        return images
    reach = config.augment_pixels
    generator = np.random.default_rng([seed, _STREAM, step])
    moves = generator.integers(0, 2 * reach + 1, (of, 2))[rows]
    flips = generator.integers(0, 2, of)[rows]
    down, right = torch.from_numpy(moves).to(images.device).unbind(1)
    height, width = images.shape[2:]
    # Every position of the window over the padded image as a view; one gather copies the chosen.
    windows = F.pad(images, (reach,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    moved = windows[torch.arange(len(images), device=images.device), :, down, right]
    if config.augment == "shift":
        return moved
    mirrored = torch.from_numpy(flips).to(images.device).bool().view(-1, 1, 1, 1)
    return torch.where(mirrored, moved.flip(3), moved)
