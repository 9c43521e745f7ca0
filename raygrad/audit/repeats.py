r"""What repeats: equal pixels, and near copies that stand out from what else is near.

Two pictures that are alike are a copy only where the data hold few pictures as alike by chance:
all handwritten ones are alike. How far a picture's first neighbours stand out is compared with how
far the ones behind them do, which are no copies (as decoys in the target-decoy search of Elias and
Gygi, Nature Methods 2007). Where points lie about a picture as chance has it, in any number of
dimensions, :math:`k \log(d_{k+1} / d_k)` of its k-th nearest distance has one law for every k
(Renyi 1953; it is what Levina and Bickel 2004 estimate dimensions by).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from raygrad.audit.nearest import Neighbours, neighbours
from raygrad.audit.registration import registered_distances

MAX_FALSE = 0.02
"""The share of near copies that may be there by chance, as the decoys estimate it."""

LEAST = 0.7
"""No picture is a copy of one that correlates less with it, whatever the decoys say."""

LEAST_GAP = float(np.log(3))
"""What follows a picture's copies is at least three times as far as they are."""

CLEAR_GAP, CLEAR = float(np.log(10)), 1.2
"""Where too few copies are found to compare their number with that of decoys: ten times as far, and
above the farthest decoy by this."""

NEAREST = 8
"""Of each example so many of its nearest are looked at, by each kind of vectors."""

MOST_COPIES = 4
"""More copies of one picture than these are taken for its surroundings."""

_BLOCK = 8192
_FINEST = 1e-4
"""Distances below this are of rounding and compression."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of examples that are alike, the first below the second."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    similarity: NDArray[np.float64]
    """Correlation of their greys once one is laid over the other, in -1..1."""


@dataclass(frozen=True)
class NearCopies:
    """Near copies, and what is thought of them."""

    pairs: Pairs
    threshold: float
    """How far they stand out at least, in ``k log(d[k + 1] / d[k])``; infinity where none does."""
    expected_false: float
    """How many of the pictures in them stand out by chance, as the decoys estimate."""
    recall: float = 1.0
    """The share of the nearest that the search for candidates finds."""


def near_copies(
    pictures: NDArray[np.uint8],
    vectors: Sequence[NDArray[np.floating]],
    *,
    max_false: float = MAX_FALSE,
) -> NearCopies:
    """Finds pairs that stand out so far from what else is near that few do so by chance.

    Candidates are the nearest of each picture by each kind of vectors; they are compared by their
    pixels, one laid over the other. A picture's first neighbours are its copies where the next one
    is much farther, and both must be the other's. The threshold is the lowest at which the decoys'
    matches are at most `max_false` of the pictures' own (one is added to them: few matches prove
    nothing).

    Args:
        pictures: As small greys, uint8 ``[N, S, S]``; equal pictures once, since copies of copies
            would be counted twice.
        vectors: Descriptors, features: each ``[N, D]``.
        max_false: The share of pairs that may be alike by chance, in (0, 1).
    """
    found = [neighbours(_whitened(each), NEAREST) for each in vectors]
    one, other = _candidates(found, len(pictures))
    distances = registered_distances(pictures, one, other)
    nearest, sorted_distances = _by_picture(one, other, distances, len(pictures))
    closed = _closed(one, other, nearest)
    number, threshold, false = _numbers_of_copies(sorted_distances, closed, max_false)
    # Of a pair each must be among the other's copies.
    copies = (np.arange(nearest.shape[1]) < number[:, None]) & (nearest >= 0)
    mutual = np.flatnonzero(np.bincount(nearest[copies], minlength=len(one)) == 2)
    pairs = Pairs(one[mutual], other[mutual], 1 - distances[mutual])
    return NearCopies(pairs, threshold, false, min((each.recall for each in found), default=1.0))


def _whitened(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns vectors of length 1 whose components count alike: less mean, over deviation.

    A vector that is the mean is 0, and alike to nothing.
    """
    found = np.empty(vectors.shape, np.float32)
    if not len(found):
        return found
    blocks = [slice(at, at + _BLOCK) for at in range(0, len(vectors), _BLOCK)]
    mean = vectors.mean(axis=0, dtype=np.float64)
    # In blocks: in double precision at once, a million features would take what is not there.
    squares = sum(((vectors[rows] - mean) ** 2).sum(axis=0) for rows in blocks)
    std = np.sqrt(squares / len(vectors))
    # Deviations of nothing but rounding would make noise count as much as what is seen.
    scale = np.where(std > 1e-6 * max(std.max(initial=0.0), 1e-12), std, np.inf)
    for rows in blocks:
        values = (vectors[rows] - mean) / scale
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        found[rows] = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 1e-9)
    return found


def _candidates(
    found: Sequence[Neighbours], number: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the pairs of which one is among the nearest of the other, each once."""
    codes = [np.empty(0, np.int64)]
    for each in found:
        here = np.broadcast_to(np.arange(number)[:, None], each.at.shape)
        there = each.similarity >= -1.5
        low, high = np.minimum(here, each.at)[there], np.maximum(here, each.at)[there]
        codes.append(low * number + high)
    pairs = np.unique(np.concatenate(codes))
    return pairs // max(number, 1), pairs % max(number, 1)


def _by_picture(
    one: NDArray[np.int64], other: NDArray[np.int64], distances: NDArray[np.float64], number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns each picture's nearest pairs and their distances, ``[N, MOST_COPIES + 2]``.

    Where a picture has fewer, the pair is -1 and the distance infinite.
    """
    who, pair = np.concatenate([one, other]), np.tile(np.arange(len(one)), 2)
    order = np.lexsort((distances[pair], who))
    who, pair = who[order], pair[order]
    place = np.arange(len(who)) - np.searchsorted(who, who)
    near = place < MOST_COPIES + 2
    nearest = np.full((number, MOST_COPIES + 2), -1, np.int64)
    found = np.full(nearest.shape, np.inf)
    nearest[who[near], place[near]] = pair[near]
    found[who[near], place[near]] = distances[pair[near]]
    return nearest, found


def _closed(
    one: NDArray[np.int64], other: NDArray[np.int64], nearest: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tells where a picture and its k nearest are also the nearest of each of them, by k - 1.

    Args:
        one: The first picture of each pair.
        other: The second.
        nearest: Each picture's nearest pairs, -1 where there are fewer, ``[N, K]``.

    Returns:
        bool ``[N, K]``.
    """
    self = np.arange(len(nearest))[:, None]
    there = nearest >= 0
    pictures = np.where(there, one[nearest] + other[nearest] - self, -1) if len(one) else nearest
    closed = np.zeros(nearest.shape, bool)
    for k in range(1, nearest.shape[1] + 1):
        group = np.sort(np.concatenate([self, pictures[:, :k]], axis=1), axis=1)
        same = [(group[pictures[:, at]] == group).all(axis=1) for at in range(k)]
        closed[:, k - 1] = there[:, :k].all(axis=1) & np.logical_and.reduce(same)
    return closed


def _numbers_of_copies(
    distances: NDArray[np.float64], closed: NDArray[np.bool_], max_false: float
) -> tuple[NDArray[np.int64], float, float]:
    """Returns how many of its neighbours are copies of each picture, by the gap behind them.

    The most copies first: what is settled is no decoy any more. The decoys of k copies are the gaps
    one place further, of the same law where there are no copies. A gap behind k + 1 pictures that
    are nearest to one another is no decoy, settled or not: a data set that holds many pictures
    three or four times would else prove by them that its pairs are chance.

    Args:
        distances: Ascending, infinite where there are fewer, ``[N, MOST_COPIES + 2]``.
        closed: As of `_closed`, for the same places.
        max_false: The share of pictures found that may be found by chance.

    Returns:
        int64 ``[N]``; the lowest threshold; and how many are found by chance, as decoys estimate.
    """
    known = np.maximum(distances, _FINEST)
    here, after = known[:, :-1], known[:, 1:]
    alike = (here <= 1 - LEAST) & np.isfinite(after)
    gaps = np.log(np.divide(after, here, out=np.ones_like(here), where=alike))
    number = np.zeros(len(distances), np.int64)
    lowest, false = np.inf, 0.0
    for k in range(MOST_COPIES, 0, -1):
        unsettled = number == 0
        own = np.where(unsettled & (gaps[:, k - 1] >= LEAST_GAP), k * gaps[:, k - 1], 0.0)
        copies_too = closed[:, k] & (gaps[:, k] >= LEAST_GAP)
        decoys = np.where(unsettled & ~copies_too, (k + 1) * gaps[:, k], 0.0)
        threshold, by_chance = _threshold(own, decoys, max_false)
        number[own >= threshold] = k
        lowest, false = min(lowest, threshold), false + by_chance
    return number, lowest, false


def _threshold(
    own: NDArray[np.float64], by_chance: NDArray[np.float64], max_false: float
) -> tuple[float, float]:
    """Returns the lowest level with few enough decoys, and how many decoys reach it."""
    levels = np.unique(own[own > 0])
    if not levels.size:
        return np.inf, 0.0
    matched = len(own) - np.searchsorted(np.sort(own), levels)
    decoys = len(by_chance) - np.searchsorted(np.sort(by_chance), levels)
    good = np.flatnonzero((decoys + 1) <= max_false * matched)
    if not good.size:
        # So few examples match that one more decoy would be too many: only what is far above all
        # decoys counts.
        good = np.flatnonzero(levels >= max(CLEAR_GAP, CLEAR * by_chance.max(initial=0.0)))
    if not good.size:
        return np.inf, 0.0
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
