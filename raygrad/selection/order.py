"""The k-th smallest of any number of rows, by radix histograms, in bounded memory.

Rows are ordered by a 128-bit composite: 64 order-preserving bits of a number, then 64 seeded bits
of the key, so that ties are broken the same way whatever the order of the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raygrad.selection.bracket import bracketed
from raygrad.selection.keyed_random import random_bits
from raygrad.selection.rows import Places, Rows, View, one_group

Bits = NDArray[np.uint64]
Groups = NDArray[np.int64]

MAX_CANDIDATES = 2**21
"""Rows that are sorted at once; above it, histograms narrow the search down first."""
_MAX_CELLS = 2**21
"""Cells of a histogram over all groups: 16 MiB."""
LAST = np.uint64(2**64 - 1)
"""The last of all bits: as a cut of ties it lets all through, and no hash needs to be read."""
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
    values: Callable[[View], NDArray[np.floating]] | None = None
    """What comes first, ascending; None orders by the seeded bits of the key alone."""

    def numbers(self, view: View) -> NDArray[np.floating]:
        """Returns what orders each row of the view, made once a view; `values` must be there."""
        assert self.values is not None, "this order has no numbers"
        values = self.values
        return view.once(("order", id(self)), lambda: values(view))

    def first_bits(self, view: View, at: Places | None = None) -> Bits:
        """Returns the first 64 bits of the rows of the view, or of those at these places."""
        if self.values is None:
            return np.zeros(len(view) if at is None else len(at), np.uint64)
        numbers = self.numbers(view)
        return order_bits(numbers if at is None else numbers[at])

    def tie_bits(self, view: View, at: Places) -> Bits:
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

    def admitted(self, view: View) -> Places:
        """Returns the places of the rows let through, ascending."""
        return np.flatnonzero(self._inside(view))

    def beyond(self, view: View) -> Places:
        """Returns the places of the rows of any group that are not let through, ascending."""
        return np.flatnonzero((self.ordering.groups(view) >= 0) & ~self._inside(view))

    @cached_property
    def _limits(self) -> NDArray[np.float64]:
        """The number of each group's cut; NaN, which nothing is below, lets nothing through."""
        return np.where(self.any, from_order_bits(self.first), np.nan)

    def _inside(self, view: View) -> NDArray[np.bool_]:
        groups = self.ordering.groups(view)
        if self.ordering.values is None:
            inside = np.zeros(len(view), bool)
            level = np.flatnonzero((groups >= 0) & self.any[groups])
        else:
            numbers = self.ordering.numbers(view)
            limits = as_wide_as(self._limits, numbers)
            bound = limits[0] if one_group(groups) else limits[groups]
            inside, equal = numbers < bound, numbers == bound
            if not one_group(groups):
                inside &= groups >= 0
                equal &= groups >= 0
            level = np.flatnonzero(equal)
        # Hashes are read for the rows that they decide upon, and for no others.
        all_level = self.ties[groups[level]] == LAST
        inside[level[all_level]] = True
        level = level[~all_level]
        inside[level] = self.ordering.tie_bits(view, level) <= self.ties[groups[level]]
        return inside


def as_wide_as(limits: NDArray[np.float64], numbers: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns limits in the dtype of the numbers where that changes none of them."""
    narrow = limits.astype(numbers.dtype)
    return narrow if np.array_equal(narrow, limits, equal_nan=True) else limits


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
    if ordering.values is not None and search.num_open > max_candidates:
        search.bracket(rows, max_candidates)
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
        self.settled = np.zeros(len(ranks), bool)
        self.counts = np.where(self.open, counts, 0)
        self.depth = 64 if ordering.values is None else 0
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

    def bracket(self, rows: Rows, max_candidates: int) -> None:
        """Finds the first 64 bits of every answer by a sample, if the sample brackets them all."""
        found = bracketed(
            rows, self.ordering.groups, self.ordering.numbers, self.open, self.ranks, self.counts,
            max_candidates,
        )  # fmt: skip
        if found is None:
            return
        values, before, level = found
        self.first, self.depth = order_bits(values), 64
        self.ranks -= np.where(self.open, before, 0)
        # Where all rows of the answer's number are in, their hashes have nothing to decide.
        self.settled = self.open & (self.ranks == level)
        self.open &= ~self.settled
        self.counts = np.where(self.open, level, 0)

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

    def _matching(self, view: View) -> tuple[Places, Groups, Bits]:
        """Returns places, groups and first bits of rows whose first bits agree so far."""
        groups = self.ordering.groups(view)
        agree = (groups >= 0) & self.open[groups]
        if self.ordering.values is not None and self.depth >= 64:
            numbers = self.ordering.numbers(view)
            answers = as_wide_as(from_order_bits(self.first), numbers)
            agree &= numbers == answers[groups]
        elif self.depth > 0 and self.ordering.values is not None:
            shift = np.uint64(64 - self.depth)
            bits = self.ordering.first_bits(view)
            agree &= (bits >> shift) == (self.first[groups] >> shift)
        at = np.flatnonzero(agree)
        return at, groups[at], self.ordering.first_bits(view, at)

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
        first = np.where(self.settled, self.first, order_bits(np.array([np.inf])))
        ties = np.full(len(self.ranks), LAST)
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
