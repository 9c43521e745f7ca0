"""The k-th smallest of any number of rows, by radix histograms, in bounded memory.

Rows are ordered by a 128-bit composite: 64 order-preserving bits of a number, then 64 seeded bits
of the key, so that ties are broken the same way whatever the order of the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raygrad.selection.keyed_random import random_bits
from raygrad.selection.rows import Rows, View

Bits = NDArray[np.uint64]
Groups = NDArray[np.int64]

MAX_CANDIDATES = 2**21
"""Rows that are sorted at once; above it, histograms narrow the search down first."""
_MAX_CELLS = 2**21
"""Cells of a histogram over all groups: 16 MiB."""
_SIGN = np.uint64(2**63)


def order_bits(values: NDArray[np.floating]) -> Bits:
    """Returns 64 bits that order as the numbers do; -0.0 and 0.0 are one, NaN is refused.

    Args:
        values: Any floating point numbers, infinities included, `[N]`.

    Returns:
        uint64 `[N]`.
    """
    assert not np.isnan(values).any(), "an order needs numbers"
    bits = (values.astype(np.float64) + 0.0).view(np.int64)
    # A negative number has all its bits turned, any other its sign alone.
    turned = (bits >> 63).view(np.uint64)
    turned |= _SIGN
    turned ^= bits.view(np.uint64)
    return turned


def from_order_bits(bits: Bits) -> NDArray[np.float64]:
    """Returns the numbers of `order_bits`."""
    return np.where(bits & _SIGN, bits & ~_SIGN, ~bits).view(np.float64)


@dataclass(frozen=True)
class Ordering:
    """How rows are grouped and ordered: functions of a view, so that it holds for any number."""

    groups: Callable[[View], Groups]
    """The group of each row, int64 `[n]`, or -1 for rows that take no part."""
    num_groups: int
    seed: int
    bits: Callable[[View], Bits] | None = None
    """The first 64 bits of each row; None orders by the seeded bits of the key alone."""

    def first_bits(self, view: View) -> Bits:
        """Returns the first 64 bits of each row of the view."""
        return np.zeros(len(view), np.uint64) if self.bits is None else self.bits(view)

    def tie_bits(self, view: View, at: NDArray[np.int64]) -> Bits:
        """Returns the last 64 bits of the rows at these places of the view."""
        return random_bits(self.seed, view.hashes(at))


@dataclass(frozen=True)
class Cut:
    """The largest composite that is let through in each group."""

    ordering: Ordering
    first: Bits
    ties: Bits
    any: NDArray[np.bool_]
    """Whether the group lets any row through."""

    def admitted(self, view: View) -> NDArray[np.int64]:
        """Returns the places of the rows let through, ascending."""
        return self._split(view)[0]

    def beyond(self, view: View) -> NDArray[np.int64]:
        """Returns the places of the rows of any group that are not let through, ascending."""
        return self._split(view)[1]

    def _split(self, view: View) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        groups, first = self.ordering.groups(view), self.ordering.first_bits(view)
        part = groups >= 0
        at_cut = self.first[groups]
        inside = part & (first < at_cut)
        level = np.flatnonzero(part & (first == at_cut))
        inside[level] = self.ordering.tie_bits(view, level) <= self.ties[groups[level]]
        inside &= self.any[groups]
        return np.flatnonzero(inside), np.flatnonzero(part & ~inside)


def group_counts(rows: Rows, ordering: Ordering) -> NDArray[np.int64]:
    """Returns how many rows each group has, int64 `[G]`."""
    counts = np.zeros(ordering.num_groups, np.int64)

    def count(view: View) -> NDArray[np.int64]:
        groups = ordering.groups(view)
        return np.bincount(groups[groups >= 0], minlength=ordering.num_groups)

    for part in rows.map(count):
        counts += part
    return counts


def cut(
    rows: Rows,
    ordering: Ordering,
    ranks: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    max_candidates: int = MAX_CANDIDATES,
) -> Cut:
    """Finds the `ranks[g]`-th smallest composite of each group.

    A pass over the rows counts the next bits of all rows that still agree with the answer so far;
    once at most `max_candidates` of them are left, one more pass collects and sorts them. Memory
    is bounded by the histogram and the candidates, whatever the number of rows.

    Args:
        rows: The rows.
        ordering: Their groups and order.
        ranks: How many rows each group lets through, in [0, counts], int64 `[G]`.
        counts: How many rows each group has.
        max_candidates: Rows sorted at once.
    """
    search = _Search(ordering, ranks, counts)
    while search.num_open > max_candidates and search.depth < 128:
        search.narrow(rows)
    return search.finish(rows)


class _Search:
    """What is known of each group's answer: its leading `depth` bits and its rank among those."""

    def __init__(
        self, ordering: Ordering, ranks: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        assert np.all((ranks >= 0) & (ranks <= counts)), "a rank beyond what there is"
        self.ordering = ordering
        self.ranks = ranks.copy()
        self.any = ranks > 0
        # A group that gives all or nothing needs no search: its cut is the end of the order.
        self.open = self.any & (ranks < counts)
        self.counts = np.where(self.open, counts, 0)
        self.depth = 64 if ordering.bits is None else 0
        self.first = np.zeros(len(ranks), np.uint64)
        self.ties = np.zeros(len(ranks), np.uint64)
        self.digit_bits = max(1, min(16, (_MAX_CELLS // max(1, len(ranks))).bit_length() - 1))

    @property
    def num_open(self) -> int:
        return int(self.counts.sum())

    def narrow(self, rows: Rows) -> None:
        """Fixes the next bits of every open group's answer."""
        width = self.digit_bits
        if self.depth < 64:
            width = min(width, 64 - self.depth)
        width = min(width, 128 - self.depth)
        size = 2**width
        histogram = np.zeros(len(self.ranks) * size, np.int64)
        for cells, numbers in rows.map(lambda view: self._cells(view, width)):
            histogram[cells] += numbers
        table = np.cumsum(histogram.reshape(-1, size), axis=1)
        digit = (table < self.ranks[:, None]).sum(axis=1)
        digit = np.where(self.open, digit, 0)
        every = np.arange(len(digit))
        before = np.where(digit > 0, table[every, np.maximum(digit - 1, 0)], 0)
        self.counts = np.where(self.open, table[every, digit] - before, 0)
        self.ranks -= np.where(self.open, before, 0)
        shift = np.uint64((64 if self.depth < 64 else 128) - self.depth - width)
        known = self.first if self.depth < 64 else self.ties
        known |= digit.astype(np.uint64) << shift
        self.depth += width

    def _cells(self, view: View, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        at, groups, first = self._matching(view)
        values = first if self.depth < 64 else self.ordering.tie_bits(view, at)
        if self.depth > 64:
            shift = np.uint64(128 - self.depth)
            agree = (values >> shift) == (self.ties[groups] >> shift)
            values, groups = values[agree], groups[agree]
        shift = np.uint64((64 if self.depth < 64 else 128) - self.depth - width)
        digits = (values >> shift) & np.uint64(2**width - 1)
        cells = (groups << width) + digits.astype(np.int64)
        return _count(cells, len(self.ranks) << width)

    def _matching(self, view: View) -> tuple[NDArray[np.int64], Groups, Bits]:
        """Returns places, groups and first bits of rows whose first bits agree so far."""
        groups, first = self.ordering.groups(view), self.ordering.first_bits(view)
        agree = (groups >= 0) & self.open[groups]
        if 0 < self.depth < 64:
            shift = np.uint64(64 - self.depth)
            agree &= (first >> shift) == (self.first[groups] >> shift)
        elif self.depth >= 64 and self.ordering.bits is not None:
            agree &= first == self.first[groups]
        at = np.flatnonzero(agree)
        return at, groups[at], first[at]

    def _candidates(self, view: View) -> tuple[Groups, Bits, Bits]:
        at, groups, first = self._matching(view)
        ties = self.ordering.tie_bits(view, at)
        if self.depth > 64:
            # A shift by 64 is undefined: at full depth the answer itself is compared.
            shift = np.uint64(min(128 - self.depth, 63))
            agree = (ties >> shift) == (self.ties[groups] >> shift)
            groups, first, ties = groups[agree], first[agree], ties[agree]
        return groups, first, ties

    def finish(self, rows: Rows) -> Cut:
        """Sorts what is left and reads each group's answer off it."""
        end = np.uint64(2**64 - 1)
        first, ties = np.full(len(self.ranks), end), np.full(len(self.ranks), end)
        if self.open.any():
            found = list(rows.map(self._candidates))
            groups, bits, tie_bits = (np.concatenate(column) for column in zip(*found, strict=True))
            order = np.lexsort((tie_bits, bits, groups))
            starts = np.searchsorted(groups[order], np.flatnonzero(self.open))
            answers = order[starts + self.ranks[self.open] - 1]
            first[self.open], ties[self.open] = bits[answers], tie_bits[answers]
        return Cut(self.ordering, first, ties, self.any)


def _count(cells: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the cells that occur and how often; small whatever the size of the histogram."""
    if len(cells) * 8 < size:
        return np.unique(cells, return_counts=True)
    counts = np.bincount(cells, minlength=size)
    occur = np.flatnonzero(counts)
    return occur, counts[occur]
