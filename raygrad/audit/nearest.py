"""The nearest of each vector among all: by exact search in blocks, or by an index beyond a million.

An index (HNSW of Malkov and Yashunin 2018, by the library usearch) finds most of the nearest in a
time that grows little faster than their number; how many it misses is measured on a sample.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger("raygrad")

MOST_EXACT = 1_000_000
"""Up to so many vectors every pair is compared: time is of their square."""

SAMPLE = 256
"""Queries whose nearest an index is compared with exact search by."""

_BLOCK = 4096
_CONNECTIVITY, _EXPANSION = 32, 256
_ABSENT = -2.0
"""The cosine of a place in the table that no vector fills: below any."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest of each vector among others."""

    at: NDArray[np.int64]
    """Their positions, ``[N, k]``, the nearest first."""
    similarity: NDArray[np.float32]
    """Their cosines, ``[N, k]``; -2 where an index found fewer."""
    recall: float = 1.0
    """The share of the true nearest that are among them: 1 of exact search, else of a sample."""


def neighbours(
    vectors: NDArray[np.float32], number: int, *, most_exact: int = MOST_EXACT
) -> Neighbours:
    """Finds the nearest other vectors of each, by an index where there are too many to compare all.

    Without the library the search is exact, and it is said that it takes long.

    Args:
        vectors: Of length 1 or 0, ``[N, D]``.
        number: How many; fewer where N is smaller.
        most_exact: Beyond so many vectors an index is used.
    """
    if len(vectors) <= most_exact:
        return exact_neighbours(vectors, number)
    try:
        return indexed_neighbours(vectors, number)
    except ImportError:
        log.warning(
            "audit: %s pictures are compared each with all, which takes time of their square; an "
            "index takes less: pip install 'raygrad[nearest]'",
            f"{len(vectors):,}",
        )
    return exact_neighbours(vectors, number)


def exact_neighbours(
    vectors: NDArray[np.float32], number: int, at: NDArray[np.int64] | None = None
) -> Neighbours:
    """Finds the nearest other vectors of each, or of some, by comparing with all in blocks.

    Args:
        vectors: Of length 1 or 0, ``[N, D]``.
        number: How many; fewer where N is smaller.
        at: Positions of those whose nearest are wanted, ``[Q]``; None for all.
    """
    points = torch.from_numpy(vectors)
    count = min(number, max(len(points) - 1, 0))
    if at is not None:
        asked = torch.from_numpy(at)
        found = _Nearest(len(asked), count)
        for rows in _blocks(len(asked)):
            for columns in _blocks(len(points)):
                block = points[asked[rows]] @ points[columns].T
                block[asked[rows, None] == torch.arange(columns.start, columns.stop)] = _ABSENT
                found.add(rows, columns, block)
        return found.neighbours()
    found = _Nearest(len(points), count)
    for rows in _blocks(len(points)):
        for columns in _blocks(len(points), rows.start):
            block = points[rows] @ points[columns].T
            if rows == columns:
                block.fill_diagonal_(_ABSENT)
            else:  # Each pair is compared once, for both of it.
                found.add(columns, rows, block.T.contiguous())
            found.add(rows, columns, block)
    return found.neighbours()


def _blocks(number: int, start: int = 0) -> list[slice]:
    return [slice(at, min(at + _BLOCK, number)) for at in range(start, number, _BLOCK)]


class _Nearest:
    """The nearest of each vector among those that it was compared with so far.

    Args:
        number: Vectors, Q.
        count: How many of the nearest are kept.
    """

    def __init__(self, number: int, count: int) -> None:
        self._count = count
        self._values = torch.full((number, count), _ABSENT)
        self._places = torch.zeros(number, count, dtype=torch.int64)

    def add(self, rows: slice, columns: slice, block: Tensor) -> None:
        """Takes in the cosines of some vectors, ``[rows, columns]``, to others."""
        values, places = block.topk(min(self._count, block.shape[1]), dim=1)
        values = torch.cat([self._values[rows], values], dim=1)
        places = torch.cat([self._places[rows], places + columns.start], dim=1)
        self._values[rows], kept = values.topk(self._count, dim=1)
        self._places[rows] = places.gather(1, kept)

    def neighbours(self) -> Neighbours:
        """Returns what was found."""
        return Neighbours(self._places.numpy(), self._values.numpy())


def indexed_neighbours(vectors: NDArray[np.float32], number: int) -> Neighbours:
    """Finds most of the nearest other vectors of each by an index, and how many it misses.

    Args:
        vectors: Of length 1 or 0, ``[N, D]``.
        number: How many; fewer where N is smaller.

    Raises:
        ImportError: usearch is not installed.
    """
    from usearch.index import Index

    count = min(number, max(len(vectors) - 1, 0))
    index = Index(
        ndim=vectors.shape[1],
        metric="ip",
        dtype="f32",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION,
        expansion_search=_EXPANSION,
    )
    index.add(np.arange(len(vectors)), vectors)
    at = np.zeros((len(vectors), count), np.int64)
    similarity = np.full((len(vectors), count), _ABSENT, np.float32)
    for start in range(0, len(vectors), _BLOCK):
        matches = index.search(vectors[start : start + _BLOCK], count + 1)
        for row in range(len(matches.counts)):
            found = matches.counts[row]
            keys, near = matches.keys[row, :found], 1 - matches.distances[row, :found]
            others = np.flatnonzero(keys != start + row)[:count]
            at[start + row, : len(others)] = keys[others]
            similarity[start + row, : len(others)] = near[others]
    return Neighbours(at, similarity, _recall(vectors, at, similarity))


def _recall(
    vectors: NDArray[np.float32], at: NDArray[np.int64], similarity: NDArray[np.float32]
) -> float:
    """Returns the share of the true nearest that were found, over a sample of the vectors."""
    sample = np.unique(np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(int))
    true = exact_neighbours(vectors, at.shape[1], sample)
    if not true.at.size:
        return 1.0
    # By their cosines: which of several that are equally near is found does not matter.
    least = true.similarity[:, -1:] - 1e-5
    return float((similarity[sample] >= least).mean())
