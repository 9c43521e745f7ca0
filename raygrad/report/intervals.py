"""Means and intervals over replicates, and nothing that needs more than a handful of numbers.

All intervals are two-sided Student t intervals. They say how far a mean over replicates may be
off; the test set is taken as given, so its own sampling error is not in them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; ``low`` and ``high`` are NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there is an interval at all, which takes at least two values."""
        return not math.isnan(self.low)

    @property
    def half_width(self) -> float:
        """Half the interval's width; NaN where there is none."""
        return (self.high - self.low) / 2

    def within(self, least: float, most: float) -> "Interval":
        """The same, ended where what it estimates must end: an accuracy at 0 and 1."""
        if not self.known:
            return self
        return Interval(self.mean, max(self.low, least), min(self.high, most), self.n)


def _half_width(standard_error: float, degrees: float, confidence: float) -> float:
    return float(stdtrit(degrees, 0.5 + confidence / 2)) * standard_error


def _variance(x: np.ndarray, resolution: float) -> float:
    # Accuracies are multiples of 1 / num_test: a few seeds that agree to the last example still do
    # not make the mean exact, so the spread is at least what such rounding leaves.
    spread = float(x.var(ddof=1)) if np.ptp(x) > 0 else 0.0  # else rounding of the mean shows
    return max(spread, resolution**2 / 12)


def mean_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, resolution: float = 0.0
) -> Interval:
    r"""The mean with its t interval.

    .. math:: \bar x \pm t_{n-1}\, s / \sqrt n, \qquad s^2 \ge r^2 / 12

    Args:
        values: Finite values, at least one.
        confidence: Coverage in (0, 1).
        resolution: The step ``r`` that the values are rounded to, such as ``1 / num_test``.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    # Values that all agree, rounded nobody knows how, leave the spread unknown and not zero.
    if len(x) < 2 or (variance := _variance(x, resolution)) == 0.0:
        return Interval(mean, math.nan, math.nan, len(x))
    half = _half_width(math.sqrt(variance / len(x)), len(x) - 1, confidence)
    return Interval(mean, mean - half, mean + half, len(x))


def difference_interval(
    a: Sequence[float],
    b: Sequence[float],
    confidence: float = CONFIDENCE,
    resolution: float = 0.0,
) -> Interval:
    """The difference of two means, ``mean(a) - mean(b)``, with Welch's t interval.

    Unequal variances are allowed, because accuracy scatters more on small subsets. Where either
    side has one value, or the values of each side agree and their rounding is not known, there is
    no interval. ``n`` is the smaller count.

    Args:
        a: Finite values, at least one.
        b: Finite values, at least one.
        confidence: Coverage in (0, 1).
        resolution: The step that the values are rounded to, as in :func:`mean_interval`.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    mean = float(x.mean() - y.mean())
    n = min(len(x), len(y))
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    u, v = _variance(x, resolution) / len(x), _variance(y, resolution) / len(y)
    if u + v == 0.0:
        return Interval(mean, math.nan, math.nan, n)
    degrees = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
    half = _half_width(math.sqrt(u + v), degrees, confidence)
    return Interval(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Spread:
    """The variance of one sample, and how well it is known."""

    variance: float
    degrees: float
    """Degrees of freedom: values less groups, where groups were pooled."""


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its standard error, by Welch and Satterthwaite.

    Attributes:
        mean: The difference.
        standard_error: Of it, above 0.
        degrees: Degrees of freedom.
        n: The smaller count of samples.
    """

    mean: float
    standard_error: float
    degrees: float
    n: int

    @property
    def p_value(self) -> float:
        """Two-sided: how often so large a difference would be seen if there were none."""
        return 2 * float(stdtr(self.degrees, -abs(self.mean) / self.standard_error))

    def interval(self, confidence: float) -> Interval:
        """Its t interval."""
        half = _half_width(self.standard_error, self.degrees, confidence)
        return Interval(self.mean, self.mean - half, self.mean + half, self.n)

    def visible(self, level: float, power: float) -> float:
        """The true difference that a two-sided test of that level sees with that power."""
        points = float(stdtrit(self.degrees, 1 - level / 2)) + float(stdtrit(self.degrees, power))
        return points * self.standard_error


def difference(
    a: Sequence[float], b: Sequence[float], spread_a: Spread | None, spread_b: Spread | None
) -> Difference | None:
    """The difference of two means, ``mean(a) - mean(b)``, with spreads that are known from more.

    Args:
        a: Samples, at least one.
        b: Samples, at least one.
        spread_a: Of one sample of ``a``.
        spread_b: Of one sample of ``b``; the same object where they are one pooled spread.

    Returns:
        None where a spread is not known.
    """
    if spread_a is None or spread_b is None:
        return None
    u, v = spread_a.variance / len(a), spread_b.variance / len(b)
    degrees = spread_a.degrees
    if spread_a != spread_b:
        degrees = (u + v) ** 2 / (u**2 / spread_a.degrees + v**2 / spread_b.degrees)
    mean = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    return Difference(mean, math.sqrt(u + v), degrees, min(len(a), len(b)))


def pooled_spread(groups: Sequence[Sequence[float]], resolution: float = 0.0) -> Spread | None:
    r"""The variance pooled over groups, :math:`\sum_j (n_j - 1) s_j^2 / \sum_j (n_j - 1)`.

    Three replicates a group know little of their own spread (two degrees of freedom); four groups
    of three know it with eight.

    Args:
        groups: Values of each; those of one value say nothing of the spread.
        resolution: The step that values are rounded to, as in :func:`mean_interval`.

    Returns:
        None where no group has two values, or all agree and their rounding is not known.
    """
    degrees = sum(len(g) - 1 for g in groups if len(g) > 1)
    if not degrees:
        return None
    summed = 0.0
    for g in groups:
        if len(g) > 1 and min(g) < max(g):  # else rounding of the mean shows
            mean = math.fsum(g) / len(g)
            summed += math.fsum((x - mean) ** 2 for x in g)
    variance = max(summed / degrees, resolution**2 / 12)
    return Spread(variance, degrees) if variance > 0 else None


def holm_levels(p_values: Sequence[float], alpha: float = 1 - CONFIDENCE) -> list[float]:
    """The level that each of several tests is held to by Holm's step-down method.

    A test is rejected exactly where its p-value is at most its level, and an interval of confidence
    1 less the level then excludes zero. All verdicts hold together with 1 - alpha, whatever the
    dependence of the tests.

    Args:
        p_values: One a test.
        alpha: The family-wise error, in (0, 1).
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    levels, count = [0.0] * len(p_values), len(p_values)
    reached = 0
    while reached < count and p_values[order[reached]] <= alpha / (count - reached):
        levels[order[reached]] = alpha / (count - reached)
        reached += 1
    for at in order[reached:]:
        levels[at] = alpha / (count - reached)
    return levels


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests corrected by Holm's step-down method, in [0, 1].

    One is at most alpha exactly where :func:`holm_levels` of that alpha rejects the test.

    Args:
        p_values: One a test.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    out, least = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, p_values[at] * (len(p_values) - rank)))
        out[at] = least
    return out


def correlation_interval(x: np.ndarray, y: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    r"""Pearson's correlation with Fisher's interval.

    .. math:: \tanh\!\left(\operatorname{artanh} r \pm z_{1 - \alpha/2} / \sqrt{n - 3}\right)

    Args:
        x: Values, ``[N]``, not all equal.
        y: Values, ``[N]``, not all equal.
        confidence: Coverage in (0, 1); there is no interval below four pairs.
    """
    r = float(np.corrcoef(x, y)[0, 1])
    if len(x) < 4 or abs(r) >= 1:
        return Interval(r, math.nan, math.nan, len(x))
    half = float(ndtri(0.5 + confidence / 2)) / math.sqrt(len(x) - 3)
    return Interval(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), len(x))
