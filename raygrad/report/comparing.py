"""Every method against random, share by share: differences, their spread and Holm's verdicts.

The spread is pooled over methods and shares, else three replicates show next to nothing. Where one
method scatters at small shares alone, as gradient methods do, the pooled spread is too small for it
there: so a difference must also stand by the own spreads of the two samples (Welch). Of five
samples or more they are asked at the same level; of fewer at 96%, which costs little power and not
all of the error: see benchmarks/statistics_claims.py for both.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raygrad.report.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    Spread,
    difference,
    holm_levels,
    holm_p_values,
    pooled_spread,
)
from raygrad.report.results import BASELINE, Panel

POWER = 0.8
"""How often the smallest visible difference would be seen, if it were there."""
ENOUGH = 5
"""Samples from which on their own spread is asked at the level of the pooled one."""
FEW_LEVEL = 0.04
"""The level at which the own spreads of fewer samples are asked."""


@dataclass(frozen=True)
class Comparison:
    """One method against random at one fraction.

    Attributes:
        method: The method.
        keep_fraction: The share of the data both were given.
        gain: Mean accuracy less random's, in [-1, 1], with an interval of the level that Holm's
            method holds this comparison to, widened to that by the own spreads: it excludes zero
            exactly where both do.
        visible: The smallest true difference that would be seen in four of five such sweeps; NaN
            where there is no interval.
        p_value: Corrected by Holm's method, in [0, 1], the larger of both; NaN where there is no
            interval.
    """

    method: str
    keep_fraction: float
    gain: Interval
    visible: float = math.nan
    p_value: float = math.nan

    @property
    def better(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.gain.known and self.gain.low > 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.gain.known and self.gain.high < 0


class Spreads:
    r"""How much one sample scatters, by method and share.

    The variance at a share is pooled over the methods, and each method has a factor on it, the same
    at every share, that is averaged over the shares:

    .. math:: \hat\sigma^2_{m,f} = r_m s_f^2, \quad s_f^2 = \operatorname{pooled}_m(x_{m,f} /
        \sqrt{r_m}), \quad r_m = \operatorname{mean}_f(s_{m,f}^2 / s_f^2)

    Three samples of one method at one share know its spread with two degrees of freedom; with this
    it is known nearly as well as if all methods scattered alike, and where one scatters twice as
    much as the others the family-wise error stays what it should be: pooled without factors it
    doubles.

    Args:
        panel: Curves of one network and protocol.
    """

    def __init__(self, panel: Panel) -> None:
        self._samples: dict[float, dict[str, Sequence[float]]] = {}
        for name, points in panel.curves.items():
            for p in points:
                if len(p.samples) > 1:
                    self._samples.setdefault(p.keep_fraction, {})[name] = p.samples
        self._resolution = panel.resolution
        self._factors: dict[str, float] = {}
        for _ in range(2):  # the second time on shares' variances cleared of the first's factors
            self._pooled = {share: self._of_share(of) for share, of in self._samples.items()}
            self._factors = self._method_factors()
        self._pooled = {share: self._of_share(of) for share, of in self._samples.items()}

    def of(self, method: str, share: float) -> Spread | None:
        """The spread of one sample of a method at a share; None where nothing tells it."""
        pooled = self._pooled.get(share)
        if pooled is None or method not in self._samples[share]:
            return None
        variance = max(pooled.variance * self._factors[method], self._resolution**2 / 12)
        own = sum(len(of[method]) - 1 for of in self._samples.values() if method in of)
        return Spread(variance, 1 / (1 / pooled.degrees + 1 / own))

    def difference(self, method: str, other: str, share: float) -> Difference | None:
        """The difference of two methods' means at a share; None where a spread is not known."""
        pooled, of = self._pooled.get(share), self._samples.get(share, {})
        if pooled is None or method not in of or other not in of:
            return None
        one = difference(of[method], of[other], self.of(method, share), self.of(other, share))
        # What the share's spread is known by bounds it all; a degree has gone into the factors.
        most = max(pooled.degrees - 1, 1)
        return replace(one, degrees=min(one.degrees, most)) if one is not None else None

    def own(self, method: str, share: float) -> Spread | None:
        """The spread of a method's own samples at a share, pooled where they all agree."""
        samples = self._samples.get(share, {}).get(method)
        alone = pooled_spread([samples], self._resolution) if samples is not None else None
        return alone or self.of(method, share)

    def own_difference(self, method: str, other: str, share: float) -> Difference | None:
        """The difference of two methods' means at a share, by their own spreads alone."""
        of = self._samples.get(share, {})
        if method not in of or other not in of:
            return None
        spreads = self.own(method, share), self.own(other, share)
        return difference(of[method], of[other], *spreads)

    def _of_share(self, of: Mapping[str, Sequence[float]]) -> Spread | None:
        scaled = [
            [x / math.sqrt(self._factors.get(name, 1.0)) for x in xs] for name, xs in of.items()
        ]
        return pooled_spread(scaled, self._resolution)

    def _method_factors(self) -> dict[str, float]:
        """Each method's variance relative to its shares' pooled ones, averaged over shares."""
        ratios: dict[str, list[float]] = {}
        for share, of in self._samples.items():
            pooled = self._pooled[share]
            for name, xs in of.items():
                own = pooled_spread([xs], self._resolution)
                if pooled is not None:
                    least = self._resolution**2 / 12
                    variance = own.variance if own is not None else least
                    ratios.setdefault(name, []).append(variance / pooled.variance)
        means = {name: math.fsum(of) / len(of) for name, of in ratios.items()}
        # A method whose samples all agree, rounded nobody knows how, is not exact for that.
        return {name: mean if mean > 0 else 1.0 for name, mean in means.items()}


@dataclass(frozen=True)
class Verdict:
    """A difference by the pooled spread and by the samples' own, each held to its level."""

    pooled: Difference
    own: Difference
    level: float
    """Of the pooled one, in (0, 1)."""

    @property
    def own_level(self) -> float:
        """Of the own one: the same, but for few samples."""
        return self.level if self.own.n >= ENOUGH else max(self.level, FEW_LEVEL)

    def interval(self) -> Interval:
        """The hull of both intervals."""
        one, other = self.pooled.interval(1 - self.level), self.own.interval(1 - self.own_level)
        return replace(one, low=min(one.low, other.low), high=max(one.high, other.high))

    def p_value(self, corrected: float) -> float:
        """The larger p-value: at most 5% exactly where both intervals leave zero out.

        Args:
            corrected: The pooled one's, by Holm's method.
        """
        return min(1.0, max(corrected, self.own.p_value * (1 - CONFIDENCE) / self.own_level))

    def visible(self) -> float:
        """The true difference that both see with `POWER`, the level held."""
        return max(self.pooled.visible(self.level, POWER), self.own.visible(self.own_level, POWER))


def comparisons(panel: Panel) -> list[Comparison]:
    """Every method against random at every fraction that both have, by Holm's method.

    All verdicts of a panel hold together with 95%, as far as few samples tell. A method or random
    of one sample alone is not compared: its interval is unknown.

    Args:
        panel: Curves of one network and protocol.
    """
    baseline = {p.keep_fraction: p for p in panel.curves.get(BASELINE, ())}
    pairs = [
        (name, point, baseline[point.keep_fraction])
        for name, points in panel.curves.items()
        if name != BASELINE
        for point in points
        if point.keep_fraction in baseline
    ]
    spreads = Spreads(panel)
    found = [spreads.difference(name, BASELINE, point.keep_fraction) for name, point, _ in pairs]
    tested = [at for at, one in enumerate(found) if one is not None]
    p_values = [one.p_value for one in found if one is not None]
    levels = dict(zip(tested, holm_levels(p_values), strict=True))
    corrected = dict(zip(tested, holm_p_values(p_values), strict=True))
    first = (1 - CONFIDENCE) / max(len(tested), 1)
    out = []
    for at, (name, point, base) in enumerate(pairs):
        one = found[at]
        if one is None:
            mean = point.interval.mean - base.interval.mean
            n = min(len(point.samples), len(base.samples))
            out.append(Comparison(name, point.keep_fraction, Interval(mean, math.nan, math.nan, n)))
            continue
        own = spreads.own_difference(name, BASELINE, point.keep_fraction) or one
        verdict = Verdict(one, own, levels[at])
        gain = verdict.interval().within(-1.0, 1.0)
        visible = Verdict(one, own, first).visible()
        p_value = verdict.p_value(corrected[at])
        out.append(Comparison(name, point.keep_fraction, gain, visible, p_value))
    return out


def gaps_to_full(panel: Panel) -> dict[str, list[tuple[float, Interval]]]:
    """Each method's mean accuracy less that on all the data, by rising share.

    The intervals hold together with 95% (Bonferroni); the share's spread is pooled over methods and
    widened to the samples' own as comparisons are, that of all the data is its own.

    Args:
        panel: Curves with full data.
    """
    assert panel.full is not None, "there is nothing to be compared with"
    count = sum(len(points) for points in panel.curves.values())
    level = (1 - CONFIDENCE) / max(count, 1)
    spreads = Spreads(panel)
    whole = pooled_spread([panel.full.samples], panel.resolution)
    out: dict[str, list[tuple[float, Interval]]] = {}
    for name, points in panel.curves.items():
        for p in points:
            both = [
                difference(p.samples, panel.full.samples, of(name, p.keep_fraction), whole)
                for of in (spreads.of, spreads.own)
            ]
            gap = Interval(p.interval.mean - panel.full.interval.mean, math.nan, math.nan, 1)
            if both[0] is not None and both[1] is not None:
                gap = Verdict(both[0], both[1], level).interval().within(-1.0, 1.0)
            out.setdefault(name, []).append((p.keep_fraction, gap))
    return out
