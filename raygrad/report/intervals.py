"""Means and intervals over seeds, and nothing that needs more than a handful of numbers.

All intervals are two-sided Student t intervals. They say how far a mean over seeds may be off; the
test set is taken as given, so its own sampling error is not in them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

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
