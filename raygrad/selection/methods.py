"""The methods of selection by rank and by chance: the paper's four, and the ends of any column."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import random_uniform
from raygrad.selection.order import Cut, Ordering, cut, from_order_bits, group_counts
from raygrad.selection.quotas import Budget
from raygrad.selection.rows import Rows, View
from raygrad.selection.weights import Race

log = logging.getLogger(__name__)

Counts = NDArray[np.int64]
Weights = Callable[[View, NDArray[np.int64]], NDArray[np.float64]]
SCORE = "score"
"""The column that a method of one score reads."""


@dataclass(frozen=True)
class Plan:
    """What to draw: the first `quotas[g]` rows of each group, in an order."""

    ordering: Ordering
    counts: Counts
    """How many rows each group has."""
    quotas: Counts
    weigher: Callable[[Rows], Weights] | None = None
    """Makes what gives the inclusion weight of the rows at some places of a view, in further
    passes over the rows; None is 1 for all."""


class Method(Protocol):
    """A method of selection; its fields are its options."""

    summary: ClassVar[str]
    paper: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""


def by_class(view: View) -> NDArray[np.int64]:
    """Groups rows by their class alone."""
    return view.classes()


@dataclass(frozen=True)
class Random:
    """Uniform without replacement: the paper's baseline."""

    summary: ClassVar[str] = "a uniform draw without replacement, the baseline"
    paper: ClassVar[str] = "Vodrahalli et al. 2018, section 3.3"
    columns: ClassVar[tuple[str, ...]] = ()

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        return Plan(
            Ordering(by_class, len(rows.counts), seed), rows.counts, budget.over(rows.counts)
        )


def _hardest_first(view: View) -> NDArray[np.floating]:
    return -view.stored(SCORE)


def _easiest_first(view: View) -> NDArray[np.floating]:
    return view.stored(SCORE)


@dataclass(frozen=True)
class MaxGradient:
    """The examples of largest score, hardest first (equation 7)."""

    summary: ClassVar[str] = "the examples of largest score, hardest first"
    paper: ClassVar[str] = "Vodrahalli et al. 2018, equation 7"
    columns: ClassVar[tuple[str, ...]] = (SCORE,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        ordering = Ordering(by_class, len(rows.counts), seed, _hardest_first)
        return Plan(ordering, rows.counts, budget.over(rows.counts))


@dataclass(frozen=True)
class Easiest:
    """The examples of smallest score, easiest first."""

    summary: ClassVar[str] = "the examples of smallest score, easiest first"
    paper: ClassVar[str] = "Sorscher et al. 2022, the better end when data is scarce"
    columns: ClassVar[tuple[str, ...]] = (SCORE,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        ordering = Ordering(by_class, len(rows.counts), seed, _easiest_first)
        return Plan(ordering, rows.counts, budget.over(rows.counts))


@dataclass(frozen=True)
class NonExtremeMaxGradient:
    """max_gradient after leaving out the `drop_fraction` of examples of largest score."""

    drop_fraction: float = 0.05
    summary: ClassVar[str] = "max_gradient once the drop_fraction of largest scores is left out"
    paper: ClassVar[str] = "Vodrahalli et al. 2018, section 3.3"
    columns: ClassVar[tuple[str, ...]] = (SCORE,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        left = without_extremes(rows, budget, seed, self.drop_fraction)
        ordering = Ordering(left.groups, len(rows.counts), seed, _hardest_first)
        return Plan(ordering, left.counts, budget.over(left.counts))


@dataclass(frozen=True)
class Band:
    """A uniform draw from the examples whose score lies between two quantiles."""

    low: float = 0.25
    high: float = 0.75
    summary: ClassVar[str] = "a uniform draw from the scores between the quantiles low and high"
    paper: ClassVar[str] = "Paul et al. 2021, section 3.3 (windows of the score's order)"
    columns: ClassVar[tuple[str, ...]] = (SCORE,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(
                f"band needs 0 <= low < high <= 1, got {self.low} and {self.high}. Swap or widen."
            )
        ends = [np.round(end * rows.counts).astype(np.int64) for end in (self.low, self.high)]
        quotas = budget.over(ends[1] - ends[0], "in the band", "Lower keep_fraction or widen it.")
        order = Ordering(by_class, len(rows.counts), seed, _easiest_first)
        below, inside = (cut(rows, order, end, rows.counts) for end in ends)

        def groups(view: View) -> NDArray[np.int64]:
            found = np.full(len(view), -1, np.int64)
            taken = inside.admitted(view)
            found[taken] = view.classes()[taken]
            found[below.admitted(view)] = -1
            return found

        ordering = Ordering(groups, len(rows.counts), seed)
        return Plan(ordering, group_counts(rows, ordering), quotas)


@dataclass(frozen=True)
class GradientCdf:
    r"""Successive sampling without replacement with probabilities proportional to the score.

    .. math:: P(x_i) = g_i / \sum_j g_j

    (equation 8), exactly, as an exponential race: each example's time is exponential with rate
    :math:`g_i`, and the first to arrive are drawn (Efraimidis and Spirakis, 2006). Examples of
    score 0 come last, in random order; if all are 0 the draw is uniform, and a warning says so.
    The weight of an example is the inverse of its chance given the others' arrivals; see
    `inclusion_weights`.

    The paper draws with these probabilities and does not say how an example is kept from being
    drawn twice; without replacement the subset has the size that was asked for.
    """

    summary: ClassVar[str] = "chance proportional to the score, without replacement"
    paper: ClassVar[str] = "Vodrahalli et al. 2018, equation 8; Efraimidis and Spirakis 2006"
    columns: ClassVar[tuple[str, ...]] = (SCORE,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        if rows.low[SCORE] < 0:
            raise DataError(
                f"gradient_cdf needs scores of at least 0, got {rows.low[SCORE]}. "
                "Name a column of norms."
            )
        quotas = budget.over(rows.counts)
        sums = class_sums(rows, SCORE)
        for zeros in rows.counts[(sums == 0) & (quotas > 0)].tolist():
            log.warning("gradient_cdf: all %d scores are 0; the draw is uniform", zeros)

        ordering = Ordering(by_class, len(rows.counts), seed, race(seed, gradient_share))
        return Plan(
            ordering, rows.counts, quotas, lambda rows: _race_weights(rows, ordering, quotas)
        )


def _race_weights(rows: Rows, ordering: Ordering, quotas: Counts) -> Weights:
    """Returns the weights of a race, once it is known when each class's next one arrives."""
    size = len(rows.counts)
    positive, last = np.zeros(size, np.int64), np.full(size, -np.inf)
    # A cut that lets all through is the end of the order, and not the number of its last row.
    to_last = np.flatnonzero(quotas + 1 == rows.counts)

    def scan(view: View) -> tuple[Counts, NDArray[np.float64]]:
        classes, highs = view.classes(), np.full(size, -np.inf)
        found = np.bincount(classes[(classes >= 0) & (view.scores(SCORE) > 0)], minlength=size)
        part = np.isin(classes, to_last)
        np.maximum.at(highs, classes[part], ordering.numbers(view)[part])
        return found, highs

    for counted, highs in rows.map(scan):
        positive += counted
        np.maximum(last, highs, out=last)
    open_ = (quotas > 0) & (quotas < positive)
    nexts = cut(rows, ordering, np.where(open_, quotas + 1, 0), rows.counts)
    log_next = from_order_bits(nexts.first)
    log_next[to_last] = last[to_last]
    ran = Race(np.where(open_, log_next, np.inf), rows.counts, positive, quotas)
    return lambda view, at: ran.weights(view.classes()[at], gradient_share(view)[at])


def gradient_share(view: View) -> NDArray[np.float64]:
    """Returns the log of the rate at which each row is drawn: of its score."""
    with np.errstate(divide="ignore"):
        return np.log(view.scores(SCORE))


def race(
    seed: int, log_rates: Callable[[View], NDArray[np.float64]]
) -> Callable[[View], NDArray[np.float64]]:
    """Returns the order of an exponential race: the log of each row's time of arrival.

    The log keeps rates apart that differ by hundreds of orders of magnitude; a rate of 0 arrives
    at infinity.
    """

    def times(view: View) -> NDArray[np.float64]:
        uniform = random_uniform(seed, view.hashes(np.arange(len(view))))
        return np.log(-np.log(uniform)) - log_rates(view)

    return times


def class_sums(rows: Rows, column: str) -> NDArray[np.float64]:
    """Returns the sum of a column over each class, float64 `[C]`."""
    sums = np.zeros(len(rows.counts), np.float64)

    def add(view: View) -> NDArray[np.float64]:
        classes = view.classes()
        part = classes >= 0
        weights = view.scores(column)[part]
        return np.bincount(classes[part], weights, minlength=len(sums)).astype(np.float64)

    for some in rows.map(add):
        sums += some
    return sums


@dataclass(frozen=True)
class Rest:
    """The rows that are left once the hardest are out."""

    extremes: Cut
    counts: Counts

    def groups(self, view: View) -> NDArray[np.int64]:
        """Returns the class of each row that is left, -1 for the others."""
        found = np.full(len(view), -1, np.int64)
        left = self.extremes.beyond(view)
        found[left] = view.classes()[left]
        return found


def without_extremes(rows: Rows, budget: Budget, seed: int, drop_fraction: float) -> Rest:
    """Leaves out the `drop_fraction` of each class's rows of largest score, in whole rows.

    Of small classes, or few rows, that can be none at all, or far from the fraction of all rows; a
    warning says so.

    Raises:
        ConfigError: Fewer are left than the budget, or the fraction is not in [0, 1).
    """
    if not 0 <= drop_fraction < 1:
        raise ConfigError(f"drop_fraction must be in [0, 1), got {drop_fraction}. Lower it.")
    dropped = np.array([round(drop_fraction * count) for count in rows.counts.tolist()], np.int64)
    _say_what_goes(drop_fraction, int(dropped.sum()), rows.counts)
    left = rows.counts - dropped
    where = f"once {dropped.sum()} extremes are left out"
    budget.over(left, where, "Lower keep_fraction or drop_fraction.")
    ordering = Ordering(by_class, len(rows.counts), seed, _hardest_first)
    return Rest(cut(rows, ordering, dropped, rows.counts), left)


def _say_what_goes(drop_fraction: float, dropped: int, counts: Counts) -> None:
    """Warns where rounding leaves out none, or other than was asked by a tenth and a row."""
    asked = drop_fraction * int(counts.sum())
    if (dropped or not asked) and abs(dropped - asked) <= max(1.0, asked / 10):
        return
    log.warning(
        "drop_fraction %g asks for %.4g of %d rows, and %d are left out: %d classes of %d to %d "
        "rows each leave out whole rows. Raise it, or draw without class_balanced.",
        drop_fraction, asked, counts.sum(), dropped, len(counts), counts.min(), counts.max(),
    )  # fmt: skip
