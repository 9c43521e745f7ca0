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
from torch.nn.functional import grid_sample, pad

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
        block = _distances(_halved(first), _halved(second))
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
    """Returns pictures smoothed by the kernel 1 2 1 along both sides, over its sum.

    Scaling and compression change the finest detail, which is not what tells pictures apart.
    """
    values = pad(torch.from_numpy(greys).float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    values = values[:, :-1] + values[:, 1:]
    values = values[:, :-1] + values[:, 1:]
    values = values[:, :, :-1] + values[:, :, 1:]
    return (values[:, :, :-1] + values[:, :, 1:]) / 16


def _halved(values: Tensor) -> Tensor:
    """Returns pictures at half the size: the means of two by two pixels."""
    rows = values[:, ::2] + values[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) / 4


def _standardised(values: Tensor) -> Tensor:
    """Returns pictures of mean 0 and length 1, 0 where they are of one colour."""
    values = values - values.mean(dim=(1, 2), keepdim=True)
    lengths = values.square().sum(dim=(1, 2), keepdim=True).sqrt()
    return values / lengths.clamp_min(1.0)


def _laid_over(still: Tensor, moved: Tensor) -> Tensor:
    """Returns the distance of pictures to others that are moved over them, ``[P]``.

    What a gain and an offset explain is projected out of the derivatives by place (inverse
    composition with appearance projected out, parts 1 and 2), without being formed anew.
    """
    number, side = len(still), still.shape[-1]
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    derivatives = _derivatives(still, centres)
    along = derivatives @ still.reshape(number, -1, 1)
    inverse = _inverse(derivatives, along)
    place = torch.zeros(number, 4)  # stretch and shift along x, along y; a picture is 2 wide
    best = torch.full((number,), 2.0)
    for step in range(_STEPS + 1):
        warped = _warped(moved, centres, place)
        alike = (still * warped).sum(dim=(1, 2))
        best = torch.minimum(best, 1 - alike)
        if step < _STEPS:
            # Where the other has to be turned over to fit, no place fits.
            gain = torch.where(alike > 0.1, 1 / alike, torch.zeros(()))
            towards = derivatives @ warped.reshape(number, -1, 1) - along * alike[:, None, None]
            change = (inverse @ towards)[:, :, 0] * gain[:, None]
            place = (place - change).clamp(-MOST_STRETCH, MOST_STRETCH)
    return best


def _derivatives(still: Tensor, centres: Tensor) -> Tensor:
    """Returns derivatives of pictures by place, by differences of neighbours, ``[P, 4, S * S]``.

    A picture is 2 wide: neighbours are 2 / S apart.
    """
    number, side = len(still), len(centres)
    found = torch.empty(number, 4, side, side)
    for values, change in ((still, found[:, 1]), (still.mT, found[:, 3].mT)):
        torch.sub(values[:, :, 2:], values[:, :, :-2], out=change[:, :, 1:-1]).mul_(side / 4)
        ends = values[:, :, [1, -1]] - values[:, :, [0, -2]]
        change[:, :, [0, -1]] = ends * (side / 2)
    torch.mul(found[:, 1], centres, out=found[:, 0])
    torch.mul(found[:, 3], centres[:, None], out=found[:, 2])
    return found.reshape(number, 4, side * side)


def _inverse(derivatives: Tensor, along: Tensor) -> Tensor:
    """Returns the inverse of the products of derivatives, without what gain and offset explain.

    It is damped by a share of what is there before that is taken away: a ramp is explained whole,
    and what rounding leaves of it is no place to go to.

    Args:
        derivatives: Of `_derivatives`, ``[P, 4, S * S]``.
        along: Their products with the pictures, of mean 0 and length 1, ``[P, 4, 1]``.

    Returns:
        ``[P, 4, 4]``.
    """
    products = derivatives @ derivatives.mT
    scale = products.diagonal(dim1=1, dim2=2).clamp_min(1e-9).sqrt()
    scale = scale[:, :, None] * scale[:, None, :]
    means = derivatives.mean(dim=2, keepdim=True)
    explained = along @ along.mT + derivatives.shape[2] * (means @ means.mT)
    return torch.linalg.inv((products - explained) / scale + _DAMPING * torch.eye(4)) / scale


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
