"""Curves over the share of the data kept: their axes, and points that never hide each other.

Accuracies are compared near their top, where a linear axis shows one thick line. So the axis of
accuracy goes by the logarithm of the error: from 90% to 99% is as far as from 99% to 99.9%.
Several methods are measured at the same share; each is set a little to the side of the next.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform
from numpy.typing import NDArray

from raygrad.report.style import PAPER, SeriesStyle
from raygrad.report.wording import percent

_LOG_BELOW = 0.11  # a logarithmic axis as soon as a sweep reaches below a tenth of the data
_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Accuracies to label, in percent: the first come first, the others where there is room.
_ACCURACIES = (
    *(90, 99, 99.9, 99.99, 50, 0, 95, 99.5, 99.95, 80, 98, 99.8, 99.98),
    *(70, 97, 99.7, 20, 60, 85, 40, 10, 30, 75, 92, 96, 98.5, 99.2, 99.6, 93, 94, 91),
)
_LEAST_APART = 0.085  # of the axis
_UNKNOWN_FLOOR = 0.05  # percent of error, where the number of test examples is not known
_HEADROOM = 2.5  # the axis ends at the smallest error over this at the most
_MARGIN = 0.08  # of the axis, above what is drawn
_FAR_FACTOR, _FAR_SHARE = 4.0, 0.25
_GAP_DASH = (0, (3, 3))
_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What is drawn of one series, in the axis's units, by rising share.

    Attributes:
        shares: Shares of the data kept, in (0, 1].
        means: A value each.
        lows: Lower ends of the intervals; NaN where there is none.
        highs: Upper ends.
        seeds: The values that each mean is of.
        end: Where the line goes on to, without a mark of the series; None: nowhere.
        hollow: Whether each mark is drawn hollow; none by default.
    """

    shares: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    seeds: Sequence[Sequence[float]] = ()
    end: tuple[float, float] | None = None
    hollow: Sequence[bool] = ()


def fraction_axis(axes: Axes, fractions: Sequence[float]) -> None:
    """Labels the x axis in percent of the data; logarithmic where a sweep reaches below 11%.

    Args:
        axes: Whose x axis.
        fractions: What is drawn on it, at least one in (0, 1].
    """
    low, high = min(fractions), max(fractions)
    axes.set_xlabel("training data kept")
    if low < _LOG_BELOW:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.18, 1.18 * high)
        ticks = [t for t in _TICKS if low / 1.1 <= t <= 1.1 * high]
        # Thinned from the upper end: the last, mostly all the data, stays.
        ticks = ticks[::-1][:: -(-len(ticks) // 7)] if len(ticks) > 7 else ticks
        axes.xaxis.set_major_locator(
            FixedLocator(sorted({*ticks, *([1.0] if high == 1.0 else [])}))
        )
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.05 * high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))


def accuracy_ends(curves: Sequence[Curve], resolution: float) -> tuple[float, float]:
    """The ends of an axis of accuracy in percent: all values are within it, and the lower ends.

    An interval over few seeds can reach to 100% where no value does; the axis would be mostly that,
    so it goes on to a fraction of the smallest error at the most, and no further than is drawn.

    Args:
        curves: What is drawn on it, in percent.
        resolution: ``1 / num_test``: half an example stands for an error of none; 0 if not known.
    """
    values = [v for c in curves for v in c.means] + [v for c in curves for s in c.seeds for v in s]
    values += [c.end[1] for c in curves if c.end is not None]
    lows = [v for c in curves for v in c.lows if not math.isnan(v)]
    highs = [v for c in curves for v in c.highs if not math.isnan(v)]
    floor = _floor(resolution)
    bottom = max(0.0, min([*values, *lows], default=0.0) - 2)
    best_error = max(100 - max(values, default=90.0), floor)
    drawn = max(100 - max([*values, *highs], default=90.0), best_error / _HEADROOM, floor)
    span = max((100 - bottom) / drawn, 1.0)
    top = 100 - max(drawn / span**_MARGIN, best_error / _HEADROOM, floor)
    if any(bottom <= label <= top for label in _ACCURACIES):
        return bottom, top
    return bottom, min((label for label in _ACCURACIES if label > top), default=top)


def _floor(resolution: float) -> float:
    return 50 * resolution or _UNKNOWN_FLOOR


def accuracy_axis(axes: Axes, curves: Sequence[Curve], resolution: float) -> None:
    """Makes the y axis one of accuracy in percent that goes by the logarithm of the error.

    Args:
        axes: Whose y axis.
        curves: What is drawn on it, in percent.
        resolution: As of :func:`accuracy_ends`.
    """
    least = _floor(resolution) / 2

    def place(accuracy: _Numbers) -> _Numbers:
        return np.asarray(-np.log10(np.maximum(100.0 - np.asarray(accuracy, dtype=float), least)))

    def accuracy(at: _Numbers) -> _Numbers:
        return np.asarray(100.0 - 10.0 ** -np.asarray(at, dtype=float))

    bottom, top = accuracy_ends(curves, resolution)
    axes.set_yscale("function", functions=(place, accuracy))
    axes.set_ylim(bottom, top)
    labelled = [a for a in _ACCURACIES if bottom <= a <= top]
    places = place(np.array([*labelled, bottom, top]))
    axes.yaxis.set_major_locator(FixedLocator(_spread(labelled, places / np.ptp(places[-2:]))))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _spread(values: Sequence[float], places: _Numbers) -> list[float]:
    """The values, each unless an earlier one stands too near on the axis."""
    chosen: list[int] = []
    for i in range(len(values)):
        if all(abs(places[i] - places[j]) >= _LEAST_APART for j in chosen):
            chosen.append(i)
    return sorted(values[i] for i in chosen)


def beside(axes: Axes, place: int, count: int, step_pt: float = 3.6) -> Transform:
    """Data coordinates moved to the side, so that ``count`` series at one share stand apart.

    Args:
        axes: Where it is drawn.
        place: Which of them, from 0.
        count: How many there are.
        step_pt: How far they stand apart, in points.
    """
    figure = axes.get_figure()
    assert figure is not None
    shift = (place - (count - 1) / 2) * min(step_pt, 18 / max(count, 1)) / 72
    return axes.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)


def far_apart(one: float, other: float) -> bool:
    """Whether two measured shares leave so much between them that a line there is a guess."""
    return other / one > _FAR_FACTOR or other - one > _FAR_SHARE


def _draw_path(axes: Axes, curve: Curve, style: SeriesStyle, moved: Transform) -> None:
    """Lines between neighbouring shares, thin, and dashed where nothing was measured between."""
    means = zip(curve.shares, curve.means, strict=True)
    path = [*means, *([curve.end] if curve.end is not None else [])]
    for one, other in itertools.pairwise(path):
        gap = far_apart(one[0], other[0])
        axes.plot(
            [one[0], other[0]],
            [one[1], other[1]],
            color=style.color,
            linestyle=_GAP_DASH if gap else style.dash,
            linewidth=0.8 if gap else 1.3,
            alpha=0.75 if gap else 1.0,
            transform=moved,
        )


def draw_curve(axes: Axes, curve: Curve, style: SeriesStyle, moved: Transform) -> None:
    """A mean with its interval and its seeds at each share, and lines between neighbours.

    Lines are thin, and dashed where neighbours are :func:`far_apart`.

    Args:
        axes: Where.
        curve: What.
        style: Its look.
        moved: From :func:`beside`.
    """
    x, y = list(curve.shares), list(curve.means)
    # What is moved to the side does not count for matplotlib's own limits.
    ends = [v for v in (*y, *curve.lows, *curve.highs) if not math.isnan(v)]
    axes.update_datalim([(x[0], v) for v in ends] if x else [])
    axes.autoscale_view(scalex=False)
    _draw_path(axes, curve, style, moved)
    known = [i for i, low in enumerate(curve.lows) if not math.isnan(low)]
    axes.vlines(
        [x[i] for i in known],
        [curve.lows[i] for i in known],
        [curve.highs[i] for i in known],
        color=style.color,
        linewidth=1.5,
        alpha=0.55,
        transform=moved,
    )
    axes.plot(
        [s for s, values in zip(x, curve.seeds, strict=False) for _ in values if len(values) > 1],
        [v for values in curve.seeds for v in values if len(values) > 1],
        color=style.color,
        marker=".",
        markersize=4.0,
        markeredgecolor="none",
        linestyle="none",
        alpha=0.55,
        transform=moved,
    )
    hollow = [*curve.hollow, *[False] * (len(x) - len(curve.hollow))]
    for is_hollow in (False, True):
        places = [i for i, so in enumerate(hollow) if so is is_hollow]
        axes.plot(
            [x[i] for i in places],
            [y[i] for i in places],
            color=style.color,
            marker=style.marker,
            markerfacecolor=PAPER if is_hollow else style.color,
            markeredgecolor=style.color if is_hollow else "none",
            markeredgewidth=1.1,
            linestyle="none",
            transform=moved,
        )
