"""What repeats: equal pixels, and near copies by similarity over a threshold found from the data.

Two pictures that are alike are a copy only where the data hold few pictures as alike by chance. How
many there are is asked of decoys (as in the target-decoy search of Elias and Gygi, Nature Methods
2007): the mirrored pictures are as natural as the others, and none of them has a copy in the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_FALSE = 0.02
"""The share of near copies that may be there by chance, as the decoys estimate it."""

LEAST = 0.7
"""No picture is a copy of one that is less alike than this, whatever the decoys say."""

RATIO = 0.2
"""Copies are nearer than this share of the distance (1 - cosine) to the last of the nearest."""

NEAREST = 8
"""Of each example so many of its nearest are looked at: more copies of one picture than these are
taken for its surroundings."""

_BLOCK = 4096


@dataclass(frozen=True)
class Pairs:
    """Pairs of examples that are alike, the first below the second."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    similarity: NDArray[np.float64]
    """Cosine of the two, in -1..1."""


@dataclass(frozen=True)
class NearCopies:
    """Near copies, and what is thought of them."""

    pairs: Pairs
    threshold: float
    """Pairs at least so alike; above 1 where nothing is told from chance."""
    expected_false: float
    """How many of them are alike by chance, as the decoys estimate."""


def _whitened(vectors: NDArray[np.floating], like: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns vectors of length 1 whose components count alike: less mean, over deviation.

    A vector that is the mean of `like` is 0, and alike to nothing.
    """
    values = like.astype(np.float64)
    if not len(values):
        return np.empty(vectors.shape, np.float32)
    std = values.std(axis=0)
    # Deviations of nothing but rounding would make noise count as much as what is seen.
    scale = np.where(std > 1e-6 * max(std.max(initial=0.0), 1e-12), std, np.inf)
    found = (vectors.astype(np.float64) - values.mean(axis=0)) / scale
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 1e-9).astype(
        np.float32
    )


@dataclass(frozen=True)
class Neighbours:
    """The nearest of each vector among others."""

    at: NDArray[np.int64]
    """Their positions, ``[N, k]``, the nearest first."""
    similarity: NDArray[np.float32]
    """Their cosines, ``[N, k]``."""


def neighbours(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> Neighbours:
    """Finds the nearest vectors of each query at other positions, by exact search in blocks.

    Args:
        vectors: Of length 1 or 0, ``[N, D]``.
        queries: The vectors themselves, or their decoys at the same positions, ``[N, D]``.
    """
    points, asked = torch.from_numpy(vectors), torch.from_numpy(queries)
    count = min(NEAREST, max(len(points) - 1, 0))
    at = np.empty((len(points), count), np.int64)
    similarity = np.empty((len(points), count), np.float32)
    for start in range(0, len(points) if count else 0, _BLOCK):
        block = asked[start : start + _BLOCK] @ points.T
        rows = torch.arange(len(block))
        block[rows, rows + start] = -2.0
        values, places = block.topk(count, dim=1)
        at[start : start + _BLOCK], similarity[start : start + _BLOCK] = places, values
    return Neighbours(at, similarity)


def near_copies(
    vectors: NDArray[np.floating],
    decoys: NDArray[np.floating],
    *,
    max_false: float = MAX_FALSE,
    least: float = LEAST,
) -> NearCopies:
    """Finds pairs so alike that few of them are so by chance.

    Two pictures are compared where each is much nearer to the other than its surroundings are (the
    ratio test of Lowe 2004, by the last of the nearest): pictures of one kind, such as handwritten
    digits, all have near neighbours and are no copies. Of what passes, the threshold is the lowest
    cosine at which the decoys' matches are at most `max_false` of the examples' own (one is added
    to them: few matches prove nothing).

    Args:
        vectors: Descriptors or features, ``[N, D]``; equal pictures once, since copies of copies
            would be counted twice.
        decoys: The same of the mirrored pictures, ``[N, D]``.
        max_false: The share of pairs that may be alike by chance, in (0, 1).
        least: The least cosine of a pair.
    """
    unit = _whitened(vectors, vectors)
    found = neighbours(unit, unit)
    if not found.similarity.size:
        nothing = np.empty(0, np.int64)
        return NearCopies(Pairs(nothing, nothing, np.empty(0)), 2.0, 0.0)
    # How far the surroundings are: the last of the nearest, beyond all copies of one picture.
    scale = 1 - found.similarity[:, -1]
    own = _passing(found, scale)
    chance = _passing(neighbours(unit, _whitened(decoys, vectors)), scale)
    threshold, false = _threshold(own.max(axis=1), chance.max(axis=1), max_false, least)
    rows, columns = np.nonzero(own >= threshold)
    one, other = rows, found.at[rows, columns]
    low, high = np.minimum(one, other), np.maximum(one, other)
    _, first = np.unique(low * len(unit) + high, return_index=True)
    similarity = own[rows, columns].astype(np.float64)
    return NearCopies(Pairs(low[first], high[first], similarity[first]), threshold, false)


def _passing(found: Neighbours, scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the cosines of pairs that pass the ratio test on both sides, -1 for the others."""
    least = np.minimum(scale[:, None], scale[found.at])
    return np.where(1 - found.similarity <= RATIO * least, found.similarity, -1.0)


def _threshold(
    own: NDArray[np.float32], by_chance: NDArray[np.float32], max_false: float, least: float
) -> tuple[float, float]:
    """Returns the lowest cosine with few enough decoys, and how many decoys reach it."""
    levels = np.unique(own[own >= least])
    if not levels.size:
        return 2.0, 0.0
    matched = len(own) - np.searchsorted(np.sort(own), levels)
    decoys = len(by_chance) - np.searchsorted(np.sort(by_chance), levels)
    good = np.flatnonzero((decoys + 1) <= max_false * matched)
    if not good.size:
        # So few examples match that one more decoy would be too many: none may reach them, and
        # only what is far above the least counts.
        good = np.flatnonzero((decoys == 0) & (levels >= (1 + least) / 2))
    if not good.size:
        return 2.0, 0.0
    return float(levels[good[0]]), float(decoys[good[0]])


def equal_pairs(digests: Sequence[bytes]) -> Pairs:
    """Returns pairs of examples of equal digest: each with the first of its kind."""
    first: dict[bytes, int] = {}
    one, other = [], []
    for at, digest in enumerate(digests):
        before = first.setdefault(digest, at)
        if before != at:
            one.append(before)
            other.append(at)
    return Pairs(np.array(one, np.int64), np.array(other, np.int64), np.ones(len(one)))


def groups_of(pairs: Sequence[Pairs], number: int) -> NDArray[np.int64]:
    """Returns the group of each example that pairs join, -1 of those that none does.

    Groups are numbered by their first example.

    Args:
        pairs: Any number of them.
        number: How many examples there are, N.

    Returns:
        int64 ``[N]``.
    """
    one = np.concatenate([p.one for p in pairs] or [np.empty(0, np.int64)])
    other = np.concatenate([p.other for p in pairs] or [np.empty(0, np.int64)])
    edges = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(number, number))
    _, parts = connected_components(edges, directed=False)
    sizes = np.bincount(parts, minlength=1)
    joined = np.flatnonzero(sizes[parts] > 1)
    found = np.full(number, -1, np.int64)
    _, first, inverse = np.unique(parts[joined], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    found[joined] = rank[inverse]
    return found
