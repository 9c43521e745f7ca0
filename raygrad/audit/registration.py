"""How far two pictures are apart once one is laid over the other: cropped and stretched a little.

A picture that is cropped by a pixel or two differs from its original in nearly every pixel, and no
more where it is laid over it. The search is that of Lucas and Kanade (1981) in the form of Baker
and Matthews (IJCV 2004): Gauss-Newton steps on shift and stretch along both axes, whatever
the gain and offset of the greys.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

MOST_STRETCH = 0.1
"""Of the size of a picture: what is cropped off it together along an axis, at most."""

FAR = 0.5
"""Pictures that are as far apart at half the size are not compared at the whole."""

_STEPS = 4
_BLOCK = 512
_DAMPING = 1e-4
_DARK = 1e-4
"""Of the length of a picture: what is left in a part of it below this is of one colour."""


def registered_distances(
    pictures: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns how far pictures of a pair are apart: 1 - correlation of greys, registered.

    Each is laid over the other, since a cropped picture lies within its original and not the other
    way; the less of both counts. Two pictures of one colour are of distance 1. Where a pair is far
    apart at half the size, its distance there stands.

    Args:
        pictures: Greys, uint8 ``[N, S, S]``.
        one: Positions of the first of each pair, ``[P]``.
        other: Positions of the second, ``[P]``.

    Returns:
        float64 ``[P]``, in 0..2.
    """
    found = np.empty(len(one), np.float64)
    for start in range(0, len(one), _BLOCK):
        some = slice(start, start + _BLOCK)
        first, second = (_smoothed(pictures[at[some]]) for at in (one, other))
        block = _distances(avg_pool2d(first, 2), avg_pool2d(second, 2))
        near = torch.nonzero(block < FAR)[:, 0]
        if len(near):
            block[near] = _distances(first[near], second[near])
        found[some] = block.double().numpy()
    return found


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Returns the distances of pairs, the less of either laid over the other, ``[P]``."""
    one, other = _standardised(first), _standardised(second)
    return torch.minimum(_laid_over(one, other), _laid_over(other, one))


def _smoothed(greys: NDArray[np.uint8]) -> Tensor:
    """Returns pictures smoothed by the kernel 1 2 1, twice the mean of two.

    Scaling and compression change the finest detail, which is not what tells pictures apart.
    """
    values = pad(torch.from_numpy(greys).float()[:, None], (1, 1, 1, 1), mode="replicate")
    return avg_pool2d(avg_pool2d(values, 2, stride=1), 2, stride=1)[:, 0]


def _standardised(values: Tensor) -> Tensor:
    """Returns pictures of mean 0 and length 1, 0 where they are of one colour."""
    values = values - values.mean(dim=(1, 2), keepdim=True)
    lengths = values.square().sum(dim=(1, 2), keepdim=True).sqrt()
    return values / lengths.clamp_min(1.0)


def _laid_over(still: Tensor, moved: Tensor) -> Tensor:
    """Returns the distance of pictures to others that are moved over them, ``[P]``."""
    number, side = len(still), still.shape[-1]
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    steps = _steps(still, centres)
    place = torch.zeros(number, 4)  # stretch and shift along x, along y; a picture is 2 wide
    best = torch.full((number,), 2.0)
    for step in range(_STEPS + 1):
        warped = _warped(moved, centres, place)
        alike = (still * warped).sum(dim=(1, 2))
        best = torch.minimum(best, 1 - alike)
        if step < _STEPS:
            # Where the other has to be turned over to fit, no place fits.
            gain = torch.where(alike > 0.1, 1 / alike, torch.zeros(()))
            change = (steps @ warped.reshape(number, -1, 1))[:, :, 0] * gain[:, None]
            place = (place - change).clamp(-MOST_STRETCH, MOST_STRETCH)
    return best


def _steps(still: Tensor, centres: Tensor) -> Tensor:
    """Returns what takes a picture to the change of place that fits it best, ``[P, 4, S * S]``.

    The pseudo-inverse of the derivatives by place, once what a gain and an offset explain is
    projected out of them (inverse composition with appearance projected out, parts 1 and 2).
    """
    number, side = len(still), len(centres)
    down, across = torch.gradient(still, spacing=2 / side, dim=(1, 2))
    columns = [across * centres, across, down * centres[:, None], down]
    derivatives = torch.stack(columns, dim=1).reshape(number, 4, side * side)
    derivatives = derivatives - derivatives.mean(dim=2, keepdim=True)
    flat = still.reshape(number, side * side, 1)
    derivatives = derivatives - (derivatives @ flat) * flat.mT
    normal = derivatives @ derivatives.mT
    scale = normal.diagonal(dim1=1, dim2=2).clamp_min(1e-9).sqrt()
    normal = normal / (scale[:, :, None] * scale[:, None, :]) + _DAMPING * torch.eye(4)
    return torch.linalg.solve(normal, derivatives / scale[:, :, None]) / scale[:, :, None]


def _warped(pictures: Tensor, centres: Tensor, place: Tensor) -> Tensor:
    """Returns pictures at some places, standardised again."""
    x = centres * (1 + place[:, :1]) + place[:, 1:2]
    y = centres * (1 + place[:, 2:3]) + place[:, 3:]
    side = len(centres)
    grid = torch.stack(
        [x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1
    )
    found = grid_sample(pictures[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    found = found - found.mean(dim=(1, 2), keepdim=True)
    lengths = found.square().sum(dim=(1, 2), keepdim=True).sqrt()
    return found / lengths.clamp_min(_DARK)
