"""The k-th smallest number of each group in two passes: a sample brackets it, a count finds it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from raygrad.selection.rows import Places, Rows, View, one_group

SAMPLED = 2**18
"""About how many rows are sampled for one group; more groups share eight times as many."""

Ends = tuple[NDArray[np.float64], NDArray[np.float64]]
Found = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def bracketed(
    rows: Rows,
    groups: Callable[[View], Places],
    numbers: Callable[[View], NDArray[np.floating]],
    wanted: NDArray[np.bool_],
    ranks: NDArray[np.int64],
    counts: NDArray[np.int64],
    max_candidates: int,
) -> Found | None:
    """Finds the `ranks[g]`-th smallest number of each group that is wanted, exactly or not at all.

    One pass over a sample takes its quantiles around each rank, some standard errors apart; one
    pass over all rows counts what is below them and collects what is between. The answer is
    proved by the counts: a sample that misleads costs time and never exactness.

    Args:
        rows: The rows.
        groups: The group of each row of a view, -1 for none.
        numbers: What orders the rows, ascending.
        wanted: The groups whose answer is asked for, `[G]`.
        ranks: Which smallest, from 1 to the group's count, `[G]`.
        counts: How many rows each group has.
        max_candidates: The most rows that may lie between.

    Returns:
        The answers, how many rows of the group are smaller, and how many are equal, `[G]` each;
        None if more rows lie between than may, or an answer is not between.
    """
    ends = _ends(rows, groups, numbers, wanted, ranks, counts, max_candidates)
    if ends is None:
        return None
    low, high = (np.where(wanted, end, np.nan) for end in ends)  # No number is beside a NaN.
    below = np.zeros(len(ranks), np.int64)
    between: list[tuple[Places, NDArray[np.floating]]] = []
    num_between = 0
    for fewer, some in rows.map(lambda view: _beside(view, groups, numbers, low, high)):
        below += fewer
        between.append(some)
        num_between += len(some[0])
        if num_between > max_candidates:
            return None
    of, found = _joined(between)
    order = _by_group(of, found)
    of, found = of[order], found[order]
    starts, sizes = _runs(of, len(ranks))
    rank = ranks - below
    if np.any(wanted & ((rank < 1) | (rank > sizes))):
        return None
    values = np.zeros(len(ranks))
    values[wanted] = found[starts[wanted] + rank[wanted] - 1]
    is_answer = found == values[of]
    level = np.bincount(of[is_answer], minlength=len(ranks))
    below += np.bincount(of[found < values[of]], minlength=len(ranks))
    return values, below, level


def _ends(
    rows: Rows,
    groups: Callable[[View], Places],
    numbers: Callable[[View], NDArray[np.floating]],
    wanted: NDArray[np.bool_],
    ranks: NDArray[np.int64],
    counts: NDArray[np.int64],
    max_candidates: int,
) -> Ends | None:
    """Returns numbers about each answer, by a sample; None if too many rows are between."""
    sampled = SAMPLED if len(ranks) == 1 else 8 * SAMPLED
    every = max(1, rows.total // sampled)

    def sample(view: View) -> tuple[Places, NDArray[np.floating]]:
        of = groups(view)
        part = (of >= 0) & wanted[of]
        return of[part], numbers(view)[part]

    of, found = _joined(list(rows.map(sample, every)))
    order = _by_group(of, found)
    found = np.append(found[order], np.inf)  # So that every place may be read.
    starts, sizes = _runs(of[order], len(ranks))
    share = np.clip(ranks / np.maximum(counts, 1), 0, 1)
    error = 4 * np.sqrt(sizes * share * (1 - share)) + 4
    first = np.floor(sizes * share - error).astype(np.int64)
    last = np.ceil(sizes * share + error).astype(np.int64)
    low = np.where(first >= 0, found[starts + np.clip(first, 0, sizes)], -np.inf)
    high = np.where(last < sizes, found[starts + np.clip(last, 0, sizes)], np.inf)
    inside = (found[:-1] >= low[of[order]]) & (found[:-1] <= high[of[order]])
    return (low, high) if inside.sum() * every <= max_candidates else None


def _beside(
    view: View,
    groups: Callable[[View], Places],
    numbers: Callable[[View], NDArray[np.floating]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> tuple[NDArray[np.int64], tuple[Places, NDArray[np.floating]]]:
    """Returns how many rows of each group are below; groups and numbers of those between."""
    of, found = groups(view), numbers(view)
    if one_group(of):
        # Narrow numbers are compared with narrow ends, rounded outwards.
        bottom = np.nextafter(found.dtype.type(low[0]), found.dtype.type(-np.inf))
        top = np.nextafter(found.dtype.type(high[0]), found.dtype.type(np.inf))
        below = found < bottom
        at = np.flatnonzero((found <= top) & ~below)
        return np.array([np.count_nonzero(below)]), (of[at], found[at])
    below = (of >= 0) & (found < low[of])
    at = np.flatnonzero((of >= 0) & (found >= low[of]) & (found <= high[of]))
    return np.bincount(of[below], minlength=len(low)), (of[at], found[at])


def _joined(
    some: list[tuple[Places, NDArray[np.floating]]],
) -> tuple[Places, NDArray[np.float64]]:
    """Returns groups and numbers of all batches."""
    of, found = (np.concatenate(column) for column in zip(*some, strict=True))
    return of, found.astype(np.float64)


def _by_group(of: Places, found: NDArray[np.float64]) -> Places:
    """Returns the order by group, then number."""
    order = np.argsort(found)
    if of.size and of.max() < 2**16:  # So narrow that the stable sort is a radix sort.
        return order[np.argsort(of[order].astype(np.uint16), kind="stable")]
    return order[np.argsort(of[order], kind="stable")]


def _runs(of: Places, num_groups: int) -> tuple[Places, NDArray[np.int64]]:
    """Returns where each group starts in sorted groups, and its size."""
    sizes = np.bincount(of, minlength=num_groups)
    return np.cumsum(sizes) - sizes, sizes
