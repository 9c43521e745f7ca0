"""Variations of training images by name, each a function of (seed, step) and the image's row."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raygrad.config import TrainConfig

# Keeps the augmentation's random numbers apart from those of the data order, which share a seed.
_STREAM, _FLIP, _CROP, _CUTOUT, _MIXUP, _ALTERNATE = 0xA06, 0xA07, 0xA08, 0xA09, 0xA0A, 0xA0B
_RATIO = 4 / 3
"""A crop's sides differ by this factor at most."""


def augment(
    images: Tensor,
    config: TrainConfig,
    *,
    seed: int,
    step: int,
    rows: NDArray[np.int64],
    of: int,
    alternate: NDArray[np.bool_] | None = None,
) -> Tensor:
    """Returns the images varied at random, as the recipe says; `mixup` is a function of its own.

    What becomes of which image follows from the seed, the step and the image's row of the global
    batch: neither the number of workers nor a restart changes it.

    Args:
        images: uint8 ``[B, C, H, W]``.
        config: `augment` and the fields beside it are used.
        seed: The seed of the data order.
        step: The step, counted over all epochs.
        rows: The images' rows in the global batch, ``[B]``.
        of: Rows of the global batch.
        alternate: Which images alternating_flip mirrors, ``[B]``, see `alternately_mirrored`.

    Returns:
        uint8 ``[B, C, H, W]``; the very same tensor where the recipe says ``none``.
    """
    names = config.augmentations
    for name in names:
        if name in ("shift", "shift_flip"):
            images = _shifted(images, config, name, [seed, _STREAM, step], rows, of)
        elif name == "flip":
            flips = np.random.default_rng([seed, _FLIP, step]).integers(0, 2, of)[rows]
            images = _mirrored(images, flips)
        elif name == "alternating_flip":
            assert alternate is not None
            images = _mirrored(images, alternate)
        elif name == "random_resized_crop":
            images = _cropped(images, config.crop_scale, [seed, _CROP, step], rows, of)
        elif name == "cutout":
            images = _cut_out(images, config.cutout_pixels, [seed, _CUTOUT, step], rows, of)
    return images


def mixup_partners(
    config: TrainConfig, *, seed: int, step: int, rows: NDArray[np.int64], of: int
) -> tuple[NDArray[np.int64], float]:
    """Returns which row of the global batch each image is blended with, and by how much.

    Zhang et al. 2018, arXiv 1710.09412: image and one-hot label become
    lambda x_i + (1 - lambda) x_j, with lambda from Beta(alpha, alpha), one a step.

    Args:
        config: `mixup_alpha` is used.
        seed: The seed of the data order.
        step: The step, counted over all epochs.
        rows: The images' rows in the global batch, ``[B]``.
        of: Rows of the global batch.

    Returns:
        The partners' rows, ``[B]``, and lambda in [0, 1].
    """
    generator = np.random.default_rng([seed, _MIXUP, step])
    share = float(generator.beta(config.mixup_alpha, config.mixup_alpha))
    return generator.permutation(of)[rows], share


def alternately_mirrored(
    positions: NDArray[np.int64], number: int, epoch: int, seed: int
) -> NDArray[np.bool_]:
    """Returns which images a pass over the data mirrors: a random half first, then the others.

    Every two passes show both views of each image, where coins show the same one twice as often as
    not (Jordan 2024, arXiv 2404.00498, section 3.6).

    Args:
        positions: Where the images are in the split, ``[B]``.
        number: Images of the split.
        epoch: The pass, from 0.
        seed: The seed of the data order.
    """
    first = np.random.default_rng([seed, _ALTERNATE]).integers(0, 2, number, dtype=np.int8)
    return (first[positions] + epoch) % 2 == 1


def scaled_down(images: Tensor, side: int) -> Tensor:
    """Returns uint8 images ``[B, C, side, side]``, smoothed as they are made smaller.

    Images that are as small already are returned as they are.
    """
    if max(images.shape[2:]) <= side:
        return images
    small = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def mixed_labels(labels: Tensor, partners: Tensor, share: float, num_classes: int) -> Tensor:
    """Returns blended labels, float32 ``[B, num_classes]``, of classes int64 ``[B]``."""
    hot = F.one_hot(labels, num_classes) * share
    return (hot + F.one_hot(partners, num_classes) * (1 - share)).float()


def _shifted(
    images: Tensor,
    config: TrainConfig,
    name: str,
    seeds: list[int],
    rows: NDArray[np.int64],
    of: int,
) -> Tensor:
    """Moves by up to p pixels with black, or the reflection, moving in.

    It is the crop from an image padded by p.

    It is usual for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2).
    """
    generator, reach = np.random.default_rng(seeds), config.augment_pixels
    moves = generator.integers(0, 2 * reach + 1, (of, 2))[rows]
    flips = generator.integers(0, 2, of)[rows]
    down, right = torch.from_numpy(moves).to(images.device).unbind(1)
    height, width = images.shape[2:]
    # Every position of the window over the padded image as a view; one gather copies the chosen.
    mode = "reflect" if config.augment_fill == "reflect" else "constant"
    windows = F.pad(images, (reach,) * 4, mode).unfold(2, height, 1).unfold(3, width, 1)
    moved = windows[torch.arange(len(images), device=images.device), :, down, right]
    return moved if name == "shift" else _mirrored(moved, flips)


def _mirrored(images: Tensor, flips: NDArray[np.int64] | NDArray[np.bool_]) -> Tensor:
    chosen = torch.from_numpy(flips).to(images.device).bool().view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(3), images)


def _cropped(
    images: Tensor, scale: float, seeds: list[int], rows: NDArray[np.int64], of: int
) -> Tensor:
    """Scales a random part to the whole (Szegedy et al. 2015, arXiv 1409.4842, section 6)."""
    generator = np.random.default_rng(seeds)
    area = generator.uniform(scale, 1.0, of)[rows]
    ratio = np.exp(generator.uniform(-np.log(_RATIO), np.log(_RATIO), of))[rows]
    where = generator.uniform(-1, 1, (of, 2))[rows]
    sides = np.minimum(1.0, np.sqrt(np.stack([area * ratio, area / ratio], 1)))
    # An affine map a image: x' = side_x x + (1 - side_x) where_x, in coordinates of [-1, 1].
    maps = np.zeros((len(rows), 2, 3))
    maps[:, [0, 1], [0, 1]] = sides
    maps[:, :, 2] = (1 - sides) * where
    theta = torch.from_numpy(maps).float().to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    pixels = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return pixels.round().clamp(0, 255).to(images.dtype)


def _cut_out(
    images: Tensor, side: int, seeds: list[int], rows: NDArray[np.int64], of: int
) -> Tensor:
    """Blackens a square whose centre is anywhere (DeVries and Taylor 2017, arXiv 1708.04552)."""
    height, width = images.shape[2:]
    centres = np.random.default_rng(seeds).uniform(0, [height, width], (of, 2))[rows]
    first = torch.from_numpy(np.floor(centres - side / 2)).to(images.device)[:, :, None]
    ys, xs = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_y = (ys >= first[:, 0]) & (ys < first[:, 0] + side)
    in_x = (xs >= first[:, 1]) & (xs < first[:, 1] + side)
    return images.masked_fill((in_y[:, :, None] & in_x[:, None, :])[:, None], 0)
