"""Methods that spread a subset over the range of difficulty: CCS, DUAL's sampling, Moderate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError, unknown_name
from raygrad.selection.methods import SCORE, Plan, by_class, race, without_extremes
from raygrad.selection.order import Ordering, cut, from_order_bits, group_counts
from raygrad.selection.quotas import Budget, even_quotas
from raygrad.selection.rows import Rows, View

_CELLS = 2**23
"""Numbers of features that are held at once."""

AUTHORS_DROP = {
    "cifar10": ((0.1, 0.3), (0.2, 0.1), (0.3, 0.1), (0.5, 0.0), (0.7, 0.0)),
    "cifar100": ((0.1, 0.5), (0.2, 0.4), (0.3, 0.2), (0.5, 0.2), (0.7, 0.1)),
    "imagenet": ((0.1, 0.3), (0.2, 0.2), (0.3, 0.2), (0.5, 0.1), (0.7, 0.0)),
}
"""The share of hardest examples that CCS's authors leave out, by the share that they keep.

That of CIFAR-10 at a tenth is in their published command; the others could not be checked against
the paper's appendix here: look there before a comparison with their figures."""


@dataclass(frozen=True)
class Ccs:
    r"""Coverage-centric coreset selection: an even draw over strata of the score.

    The `drop_fraction` of hardest examples (mislabelled ones, often) is left out; what is left is
    cut into `num_strata` strata of equal width between its lowest and highest score. The budget
    goes to the strata evenly, smallest first: one that has less than its share gives all, and the
    others share the rest. Within a stratum the draw is uniform. With `class_balanced` all of it is
    done within each class.

    The authors tune the share that is left out with the budget and the data set; `drop_schedule`
    names the data set whose shares are taken (of scores by AUM; `AUTHORS_DROP`), on a straight line
    between the budgets that they give and level beyond them. By default it is `drop_fraction`
    whatever the budget, which is no choice of the authors. They draw from strata of AUM; here any
    score will do.
    """

    drop_fraction: float = 0.1
    num_strata: int = 50
    drop_schedule: str = "fixed"
    summary: ClassVar[str] = "an even draw over strata of the score, once the hardest are out"
    paper: ClassVar[str] = "Zheng et al. 2023, algorithm 1 (arXiv 2210.15809)"
    columns: ClassVar[tuple[str, ...]] = (SCORE,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        if self.num_strata < 1:
            raise ConfigError(f"num_strata must be at least 1, got {self.num_strata}. Raise it.")
        left = without_extremes(rows, budget, seed, self.dropped(budget.total / rows.total))
        num_classes, num_strata = len(left.counts), self.num_strata
        low, high = _ranges(rows, SCORE, left.groups, num_classes)
        # A class of one score has no width: all of it is in the lowest stratum.
        width = np.where(high > low, high - low, 1.0)

        def strata(view: View) -> NDArray[np.int64]:
            classes = left.groups(view)
            share = (view.scores(SCORE) - low[classes]) / width[classes]
            stratum = np.clip((share * num_strata).astype(np.int64), 0, num_strata - 1)
            return np.where(classes >= 0, classes * num_strata + stratum, -1)

        ordering = Ordering(strata, num_classes * num_strata, seed)
        counts = group_counts(rows, ordering)
        table, quotas = counts.reshape(num_classes, num_strata), budget.over(left.counts)
        shares = [even_quotas(of, int(q)) for of, q in zip(table, quotas, strict=True)]
        return Plan(ordering, counts, np.concatenate(shares))

    def dropped(self, kept: float) -> float:
        """Returns the share of hardest examples left out where so much is kept, in [0, 1).

        Raises:
            ConfigError: There is no such schedule.
        """
        if self.drop_schedule == "fixed":
            return self.drop_fraction
        if self.drop_schedule not in AUTHORS_DROP:
            known = ("fixed", *AUTHORS_DROP)
            raise ConfigError(unknown_name("drop_schedule", self.drop_schedule, known))
        at, shares = zip(*AUTHORS_DROP[self.drop_schedule], strict=True)
        return float(np.interp(kept, at, shares))


@dataclass(frozen=True)
class DualBeta:
    r"""DUAL's sampling: by the score times a Beta density that prefers easier examples when few.

    .. math::
        p_i \propto u_i \, \mathrm{Beta}(\bar p_i; \alpha_r, \beta_r), \quad
        \beta_r = C (1 - \mu) (1 - r^{c_D}), \quad \alpha_r = C + 1 - \beta_r

    with the DUAL score :math:`u_i`, the mean probability of the true class over training
    :math:`\bar p_i`, the share left out :math:`r`, and :math:`\mu` the mean :math:`\bar p` of the
    ten examples of highest score. Drawn without replacement, as an exponential race. The authors
    take score and probabilities from the first epochs of training: `dynamics_epochs`. As the
    density moves with the budget, subsets of growing budget do not nest. The denser the data of a
    class, the larger `c_d` should be: the paper takes 5.5 for CIFAR-10, 4 for CIFAR-100 and 11 for
    ImageNet-1k.
    """

    c_d: float = 5.5
    concentration: float = 15.0
    summary: ClassVar[str] = (
        "chance by the DUAL score, tilted to easy examples when few are kept; does not nest"
    )
    paper: ClassVar[str] = "Cho et al. 2025, section 3.3 (arXiv 2502.06905)"
    columns: ClassVar[tuple[str, ...]] = ("dual", "mean_probability")

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        self._check(rows)
        quotas, num_classes = budget.over(rows.counts), len(rows.counts)
        left_out = 1.0 - quotas / np.maximum(rows.counts, 1)
        anchor = _mean_of_highest(rows, seed)
        beta = self.concentration * (1 - anchor) * (1 - left_out**self.c_d)
        alpha = self.concentration + 1 - beta

        def log_rates(view: View) -> NDArray[np.float64]:
            classes, mean = view.classes(), view.scores("mean_probability")
            with np.errstate(divide="ignore"):
                # A density is a limit at 0 and 1; the nearest inner number stands for them.
                easy = np.log(np.clip(mean, 1e-12, 1 - 1e-12))
                hard = np.log1p(-np.clip(mean, 1e-12, 1 - 1e-12))
                score = np.log(view.scores("dual"))
            return score + (alpha[classes] - 1) * easy + (beta[classes] - 1) * hard

        ordering = Ordering(by_class, num_classes, seed, race(seed, log_rates))
        return Plan(ordering, rows.counts, quotas)

    def _check(self, rows: Rows) -> None:
        if self.c_d <= 0 or self.concentration <= 0:
            raise ConfigError(
                f"c_d and concentration must be positive, got {self.c_d} and {self.concentration}."
            )
        if rows.low["dual"] < 0:
            raise DataError(f"dual scores must be at least 0, got {rows.low['dual']}.")
        low, high = rows.low["mean_probability"], rows.high["mean_probability"]
        if low < 0 or high > 1:
            raise DataError(f"mean_probability must be in [0, 1], got {low} to {high}.")


@dataclass(frozen=True)
class Moderate:
    r"""The examples whose distance to their class's centre is nearest to the median distance.

    .. math:: \min_S \sum_{i \in S} |d_i - \mathrm{median}(d)|, \quad d_i = \|h_i - c_{y_i}\|

    with the centre :math:`c_y` the median feature of the class. Neither the typical nor the odd
    examples; `feature_distances` gives the column. With `class_balanced` the median is the
    class's.
    """

    summary: ClassVar[str] = "the examples nearest the median distance to their class's centre"
    paper: ClassVar[str] = "Xia et al. 2023 (Moderate coreset, ICLR)"
    columns: ClassVar[tuple[str, ...]] = ("feature_distance",)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        (name,) = self.columns
        ordering = Ordering(by_class, len(rows.counts), seed, lambda view: view.stored(name))
        # The two middle ranks: the same one where the count is odd.
        ranks = ((rows.counts + 1) // 2, rows.counts // 2 + 1)
        ends = [
            from_order_bits(cut(rows, ordering, np.minimum(rank, rows.counts), rows.counts).first)
            for rank in ranks
        ]
        # Where a rank is its class's last, the cut is the end of the order: the class's highest.
        _, highest = _ranges(rows, name, by_class, len(rows.counts))
        low, high = (np.where(np.isfinite(end), end, highest) for end in ends)
        median = (low + high) / 2

        def from_median(view: View) -> NDArray[np.float64]:
            return np.abs(view.scores(name) - median[view.classes()])

        ordering = Ordering(by_class, len(rows.counts), seed, from_median)
        return Plan(ordering, rows.counts, budget.over(rows.counts))

    def column(
        self, features: NDArray[Any], labels: NDArray[Any], order: NDArray[np.int64], seed: int
    ) -> NDArray[np.float64]:
        """Returns what is ordered by; see `feature_distances`."""
        return feature_distances(features, labels, order)


def feature_distances(
    features: NDArray[Any], labels: NDArray[Any], among: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Returns each example's distance to the median feature of its class.

    Args:
        features: The penultimate layer's output, `[N, D]`, in memory or mapped from a file, of
            which a class's 64 MiB are held at once.
        labels: Classes, `[N]`.
        among: Places that take part; by default all.

    Returns:
        Euclidean distances, float64 `[N]`; NaN for what takes no part.
    """
    distances = np.full(len(labels), np.nan)
    among = np.arange(len(labels)) if among is None else among
    for label in np.unique(labels[among]):
        of = among[labels[among] == label]
        width = max(1, _CELLS // len(of))
        squares = np.zeros(len(of))
        for start in range(0, features.shape[1], width):
            members = features[of, start : start + width].astype(np.float64)
            squares += np.square(members - np.median(members, axis=0)).sum(axis=1)
        distances[of] = np.sqrt(squares)
    return distances


def _ranges(
    rows: Rows, name: str, groups: Callable[[View], NDArray[np.int64]], num_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the lowest and highest value of a column in each group, float64 `[G]`."""

    def of_view(view: View) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lows, highs = np.full(num_groups, np.inf), np.full(num_groups, -np.inf)
        at, values = groups(view), view.scores(name)
        part = at >= 0
        np.minimum.at(lows, at[part], values[part])
        np.maximum.at(highs, at[part], values[part])
        return lows, highs

    low, high = np.full(num_groups, np.inf), np.full(num_groups, -np.inf)
    for lows, highs in rows.map(of_view):
        np.minimum(low, lows, out=low)
        np.maximum(high, highs, out=high)
    return low, high


def _mean_of_highest(rows: Rows, seed: int, number: int = 10) -> NDArray[np.float64]:
    """Returns the mean probability over the examples of highest DUAL score of each class."""
    num_classes = len(rows.counts)
    ordering = Ordering(by_class, num_classes, seed, lambda view: -view.stored("dual"))
    highest = cut(rows, ordering, np.minimum(number, rows.counts), rows.counts)
    sums, numbers = np.zeros(num_classes), np.zeros(num_classes)

    def found(view: View) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        at = highest.admitted(view)
        return view.classes()[at], view.scores("mean_probability")[at]

    for classes, values in rows.map(found):
        sums += np.bincount(classes, values, minlength=num_classes)
        numbers += np.bincount(classes, minlength=num_classes)
    return sums / np.maximum(numbers, 1)
