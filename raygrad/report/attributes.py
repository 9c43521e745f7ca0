"""The two attributes by which the paper compares data sets: simplicity and redundancy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raygrad.report.findings import MARGIN, Need, needs
from raygrad.report.intervals import Interval, mean_interval
from raygrad.report.results import BASELINE, FULL, Panel, Point

FROM = 0.01  # curves are compared from 1% of the data on


@dataclass(frozen=True)
class Range:
    """An estimate between two bounds that hold together with 95%."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Attributes:
    """What a sweep says of its data set, for one network and protocol.

    Attributes:
        simplicity: Mean accuracy of random subsets relative to full accuracy, in [0, 1].
        simplicity_from: The smallest fraction that it covers.
        redundancy: The share of the data that the best method can leave out, in [0, 1).
        best: The method that leaves out most.
        random_redundancy: The same by random subsets.
    """

    simplicity: Interval
    simplicity_from: float
    redundancy: Range
    best: str
    random_redundancy: Range


def simplicity(curve: Sequence[Point], full: Point, start: float = FROM) -> tuple[Interval, float]:
    r"""Area under random's relative accuracy curve over the logarithm of the fraction.

    .. math:: \frac{1}{\ln(1/f_0)} \int_{f_0}^1 \frac{a(f)}{a(1)}\, d\ln f

    by trapezoids between the measured fractions: 1 for a data set of which any subset teaches as
    much as the whole. The interval is over seeds, each one's curve being one value.

    Args:
        curve: Random's points by rising fraction, at least one.
        full: Accuracy on all the data.
        start: ``f_0``; where the curve begins later, it is the curve's first fraction.

    Returns:
        The area with its interval, and the ``f_0`` that was used.
    """
    fractions = np.array([p.keep_fraction for p in curve] + [FULL])
    start = max(start, float(fractions[0]))
    grid = np.unique(np.concatenate([fractions[fractions > start], [start, FULL]]))
    seeds = min(len(p.values) for p in (*curve, full))
    areas = []
    for seed in range(seeds):
        relative = np.array([p.values[seed] for p in (*curve, full)]) / full.values[seed]
        at = np.interp(np.log(grid), np.log(fractions), relative)
        areas.append(float(np.trapezoid(at, np.log(grid)) / -np.log(start)))
    return mean_interval(areas), start


def left_out(curve: Sequence[Point], full: Point, need: Need, margin: float = MARGIN) -> Range:
    """The share of the data that a method can leave out and stay close to full accuracy.

    The estimate goes by the means: one less the smallest measured fraction from which on all means
    are within the margin. The bounds are those of the findings: below the low one every interval
    agrees that it is enough, above the high one an interval says that it is not.

    Args:
        curve: The method's points by rising fraction.
        full: Accuracy on all the data.
        need: What the intervals settle.
        margin: Accepted loss of accuracy.
    """
    estimate = 0.0
    for p in reversed(curve):
        if p.interval.mean < full.interval.mean - margin:
            break
        estimate = 1 - p.keep_fraction
    low = 0.0 if need.enough is None else 1 - need.enough
    high = 1.0 if need.too_little is None else 1 - need.too_little
    return Range(estimate, min(low, estimate), max(high, estimate))


def attributes(panel: Panel) -> Attributes | None:
    """Simplicity and redundancy by one panel; None without random, or without the full data.

    Args:
        panel: Curves of one network and protocol.
    """
    random = panel.curves.get(BASELINE)
    if not random or panel.full is None:
        return None
    settled = {n.method: n for n in needs(panel)}
    shares = {
        name: left_out(points, panel.full, settled[name]) for name, points in panel.curves.items()
    }
    best = max(shares, key=lambda name: (shares[name].estimate, shares[name].low, name == BASELINE))
    area, start = simplicity(random, panel.full)
    return Attributes(area, start, shares[best], best, shares[BASELINE])
