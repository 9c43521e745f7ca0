"""Test accuracy against what was kept: the study's main result (the paper's Figures 3, 8 and 9)."""

from collections.abc import Sequence

import matplotlib.figure
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.legend import method_legend
from raygrad.report.intervals import CONFIDENCE
from raygrad.report.results import (
    BASELINE,
    BEST_AT_FIRST,
    FULL,
    STILL_IMPROVING,
    Panel,
    Point,
)
from raygrad.report.style import INK, Layout, SeriesStyle, panels, series_styles
from raygrad.report.wording import percent, protocol_words, scope

_LOG_BELOW = 0.11  # a logarithmic axis as soon as a sweep reaches below a tenth of the data
_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def accuracy_table(panels_: Sequence[Panel]) -> pa.Table:
    """The points of all curves: one row a network, protocol, method and fraction."""
    rows = []
    for panel in panels_:
        curves = {**panel.curves, **({"full data": (panel.full,)} if panel.full else {})}
        for method, points in curves.items():
            rows += [
                {
                    "network": panel.network,
                    "protocol": panel.protocol,
                    "method": method,
                    "keep_fraction": p.keep_fraction,
                    "n": p.interval.n,
                    "score_networks": p.num_score_networks,
                    "trials": p.num_trials,
                    "still_improving": p.num_still_improving,
                    "best_at_first": p.num_best_at_first,
                    "mean": p.interval.mean,
                    "low": p.interval.low,
                    "high": p.interval.high,
                }
                for p in points
            ]
    return pa.Table.from_pylist(rows)


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
        axes.set_xlim(low / 1.15, 1.15 * high)
        ticks = [t for t in _TICKS if low / 1.1 <= t <= 1.1 * high]
        ticks = ticks[:: -(-len(ticks) // 7)] if len(ticks) > 7 else ticks
        axes.xaxis.set_major_locator(
            FixedLocator(sorted({*ticks, *([1.0] if high == 1.0 else [])}))
        )
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, 1.03 * high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(x)))


def _band(axes: Axes, points: Sequence[Point], style: SeriesStyle) -> None:
    known = [p for p in points if p.interval.known]
    x = [p.keep_fraction for p in known]
    low = [100 * max(p.interval.low, 0.0) for p in known]
    high = [100 * min(p.interval.high, 1.0) for p in known]
    draw_band(axes, x, low, high, style)


def draw_band(
    axes: Axes,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    style: SeriesStyle,
) -> None:
    """An interval at each place as a band; a single one, which no band would show, as a bar."""
    if len(x) == 1:
        axes.vlines(x, low, high, color=style.color, linewidth=1.2, alpha=0.7)
    else:
        axes.fill_between(x, low, high, color=style.color, alpha=0.16, linewidth=0)


def _curve(axes: Axes, points: Sequence[Point], style: SeriesStyle) -> None:
    axes.plot(
        [p.keep_fraction for p in points],
        [100 * p.interval.mean for p in points],
        color=style.color,
        marker=style.marker,
        linestyle=style.dash,
        markeredgecolor="none",
    )
    doubtful = [p for p in points if p.num_still_improving or p.num_best_at_first]
    axes.plot(
        [p.keep_fraction for p in doubtful],
        [100 * p.interval.mean for p in doubtful],
        color=style.color,
        marker=style.marker,
        linestyle="none",
        markerfacecolor="white",
    )


def _full_line(axes: Axes, panel: Panel) -> None:
    if panel.full is None:
        return
    interval = panel.full.interval
    axes.axhline(100 * interval.mean, color=INK, linewidth=0.9, zorder=1)
    if interval.known:
        axes.axhspan(
            100 * interval.low, 100 * min(interval.high, 1.0), color=INK, alpha=0.08, linewidth=0
        )
    axes.annotate(
        f"all data {100 * interval.mean:.2f}%",
        (0.0, 100 * interval.mean),
        xycoords=("axes fraction", "data"),
        xytext=(3, 2.5),
        textcoords="offset points",
        fontsize=7.5,
        color=INK,
    )


def panel_title(panel: Panel) -> str:
    """The network and the protocol."""
    return f"{panel.network}, {protocol_words(panel.protocol)}"


def _draw_accuracy(panels_: Sequence[Panel], layout: Layout) -> matplotlib.figure.Figure:
    styles = series_styles(name for p in panels_ for name in p.curves)
    figure, axes = panels(layout, len(panels_), 3.5 if len(panels_) == 1 else 3.0)
    fractions = [pt.keep_fraction for p in panels_ for c in p.curves.values() for pt in c]
    fractions += [FULL] if any(p.full for p in panels_) or not fractions else []
    for panel, ax in zip(panels_, axes, strict=True):
        _full_line(ax, panel)
        for name, points in panel.curves.items():
            _band(ax, points, styles[name])
        for name, points in panel.curves.items():
            whole = (*points, panel.full) if panel.full else points
            _curve(ax, whole, styles[name])
        fraction_axis(ax, fractions)
        ax.set_ylabel("test accuracy (%)")
        ax.set_title(panel_title(panel))
    if styles:
        method_legend(figure, layout, styles)
    return figure


def _seeds(panels_: Sequence[Panel]) -> str:
    counts = {p.interval.n for panel in panels_ for c in panel.curves.values() for p in c}
    if not counts:
        return "no seeds"
    low, high = min(counts), max(counts)
    unit = "scoring network" if any(p.num_score_networks > 1 for p in panels_) else "seed"
    return f"{low} {unit}{'s' if low > 1 else ''}" if low == high else f"{low} to {high} {unit}s"


def _caption(panels_: Sequence[Panel]) -> str:
    parts = []
    for panel in panels_:
        if panel.full is None:
            continue
        i = panel.full.interval
        none = "one seed" if i.n == 1 else "seeds that all agree"
        ends = f" ({100 * i.low:.2f} to {100 * i.high:.2f})"
        band = ends if i.known else f" ({none}, so no interval)"
        where = f" ({panel_title(panel)})" if len(panels_) > 1 else ""
        parts.append(f"{100 * i.mean:.2f}%{band}{where}")
    joins = "; where it joins the line, the rest of the data was redundant" if parts else ""
    full = f" On all the data: {'; '.join(parts)}." if parts else " No trial kept all the data."
    return (
        f"Test accuracy after retraining from scratch on what each method kept: the mean over "
        f"{_seeds(panels_)} and its {percent(CONFIDENCE)} interval, {scopes(panels_)}. Where a "
        f"band lies above {BASELINE}'s, choosing examples was worth it{joins}.{full}"
        f"{_marks(panels_)}"
    )


def scopes(panels_: Sequence[Panel]) -> str:
    """What the curves hold for: ``given one scoring network``, or over how many."""
    counts = sorted({p.num_score_networks for p in panels_}) or [1]
    words = [scope(number) for number in counts]
    return " or ".join(text[0].lower() + text[1:] for text in words)


def _marks(panels_: Sequence[Panel]) -> str:
    """How many trials are doubtful, and why."""
    points = [p for panel in panels_ for of in panel.curves.values() for p in of]
    still, first, trials = (
        sum(getattr(p, name) for p in points)
        for name in ("num_still_improving", "num_best_at_first", "num_trials")
    )
    told = [
        f"{number} of {trials} {words}"
        for number, words in ((still, STILL_IMPROVING), (first, BEST_AT_FIRST))
        if number
    ]
    return f" Open marks have doubtful trials: {' and '.join(told)}." if told else ""


def accuracy_figure(panels_: Sequence[Panel]) -> Drawn:
    """Test accuracy against keep_fraction, for each network and protocol (Figs. 3, 8 and 9).

    Args:
        panels_: Curves of the sweep, from ``results.panels_of``.
    """
    title = "Accuracy against the data kept"
    if not panels_:
        return Missing("accuracy", title, "There is no sweep yet; `raygrad sweep` retrains.")
    methods = sorted({name for p in panels_ for name in p.curves})
    return Figure(
        name="accuracy",
        title=title,
        caption=_caption(panels_),
        alt=f"Line chart of test accuracy against the share of the training data kept, for "
        f"{', '.join(methods)}. The numbers are in the results table and in accuracy.csv.",
        table=accuracy_table(panels_),
        draw=lambda layout: _draw_accuracy(panels_, layout),
    )
