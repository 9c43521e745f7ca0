"""Test accuracy against what was kept: the study's main result (the paper's Figures 3, 8 and 9)."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import matplotlib.figure
import pyarrow as pa
from matplotlib.axes import Axes

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.curves import (
    Curve,
    accuracy_axis,
    accuracy_ends,
    beside,
    draw_curve,
    fraction_axis,
)
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
from raygrad.report.style import INK, Layout, SeriesStyle, as_text, panels, series_styles
from raygrad.report.wording import listed, percent, protocol_words, scope

_ON_A_PHONE = " A narrow page has the first protocol here and all of them below."
_HEIGHT_IN, _OPENING_IN = 3.2, 2.75  # of a panel, and where it opens the page


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


def _curves(panel: Panel) -> dict[str, Curve]:
    """Every series of a panel in percent; its line ends in the full data, where all are one."""
    full = panel.full
    end = (FULL, 100 * full.interval.mean) if full is not None else None
    return {name: _curve(points, end) for name, points in panel.curves.items()}


def _curve(points: Sequence[Point], end: tuple[float, float] | None) -> Curve:
    # An interval ends where accuracies do.
    intervals = [p.interval for p in points]
    return Curve(
        shares=[p.keep_fraction for p in points],
        means=[100 * i.mean for i in intervals],
        lows=[100 * max(i.low, 0.0) if i.known else math.nan for i in intervals],
        highs=[100 * min(i.high, 1.0) if i.known else math.nan for i in intervals],
        seeds=[[100 * v for v in p.values] for p in points],
        end=end,
        hollow=[p.num_still_improving + p.num_best_at_first > 0 for p in points],
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
        xytext=(3, 3),
        textcoords="offset points",
        fontsize=7.5,
        color=INK,
    )


def panel_title(panel: Panel) -> str:
    """The network and the protocol."""
    return f"{panel.network}, {protocol_words(panel.protocol)}"


def draw_panel(ax: Axes, panel: Panel, styles: Mapping[str, SeriesStyle]) -> None:
    """Draws one panel's curves and its line of all the data; the x axis is left to the caller.

    Args:
        ax: Where.
        panel: What.
        styles: The look of each series.
    """
    curves = _curves(panel)
    accuracy_axis(ax, [*curves.values()], panel.resolution)
    _full_line(ax, panel)
    for place, (name, curve) in enumerate(curves.items()):
        draw_curve(ax, curve, styles[name], beside(ax, place, len(curves)))
    ax.set_ylabel("test accuracy (%)")


def _draw_accuracy(
    panels_: Sequence[Panel], height_in: float, layout: Layout, titled: bool | None = None
) -> matplotlib.figure.Figure:
    styles = series_styles(name for p in panels_ for name in p.curves)
    figure, axes = panels(layout, len(panels_), height_in)
    fractions = [pt.keep_fraction for p in panels_ for c in p.curves.values() for pt in c]
    fractions += [FULL] if any(p.full for p in panels_) or not fractions else []
    for panel, ax in zip(panels_, axes, strict=True):
        draw_panel(ax, panel, styles)
        fraction_axis(ax, fractions)
        if len(panels_) > 1 if titled is None else titled:
            ax.set_title(as_text(panel_title(panel)))
    if styles:
        method_legend(figure, layout, styles)
    return figure


def _draw_opening(panels_: Sequence[Panel]) -> Callable[[Layout], matplotlib.figure.Figure]:
    """Draws what opens a page: all panels beside each other, on a phone the first alone."""

    def draw(layout: Layout) -> matplotlib.figure.Figure:
        shown = panels_ if layout.columns > 1 else panels_[:1]
        return _draw_accuracy(shown, _OPENING_IN, layout, titled=len(panels_) > 1)

    return draw


def _opening_title(panels_: Sequence[Panel]) -> str:
    """The network, with the protocol of the panel that a phone shows; others are titled."""
    first = f"Accuracy: {panel_title(panels_[0])}"
    others = [protocol_words(p.protocol) for p in panels_[1:]]
    return f"{first} and {listed(others)}" if others else first


def _seeds(panels_: Sequence[Panel]) -> str:
    counts = {p.interval.n for panel in panels_ for c in panel.curves.values() for p in c}
    if not counts:
        return "no seeds"
    low, high = min(counts), max(counts)
    unit = "scoring network" if any(p.score_network_counts[1] > 1 for p in panels_) else "seed"
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
    full = f" On all the data: {'; '.join(parts)}." if parts else " No trial kept all the data."
    return (
        f"Test accuracy after retraining from scratch on what each method kept: a mark at the mean "
        f"over {_seeds(panels_)}, a bar over its {percent(CONFIDENCE)} interval, "
        f"{scopes(panels_)}, a dot a replicate. Bars are of one mean each: which methods differ "
        f"from {BASELINE}, and how much of the data is enough, the findings say. The axis goes by "
        "the logarithm of the error, so that its upper end can be read; methods at one share stand "
        "side by side; a dashed line joins shares with nothing measured between them."
        f"{_cut(panels_)}{full}{_marks(panels_)}"
    )


def _cut(panels_: Sequence[Panel]) -> str:
    """Says so where intervals reach past the upper end of their axis."""
    for panel in panels_:
        curves = [*_curves(panel).values()]
        if any(h > accuracy_ends(curves, panel.resolution)[1] for c in curves for h in c.highs):
            return " Bars that reach past the axis are cut there."
    return ""


def scopes(panels_: Sequence[Panel]) -> str:
    """What the curves hold for: ``given one scoring network``, or over how many."""
    counts = sorted({p.score_network_counts for p in panels_}) or [(1, 1)]
    words = [scope(*fewest_and_most) for fewest_and_most in counts]
    return " or ".join(text[0].lower() + text[1:] for text in words)


def _marks(panels_: Sequence[Panel]) -> str:
    """How many trials are doubtful, and why."""
    points = [p for panel in panels_ for of in panel.curves.values() for p in of]
    still, first, trials = (
        sum(getattr(p, name) for p in points)
        for name in ("num_still_improving", "num_best_at_first", "num_trials")
    )
    marks = [
        f"{number} of {trials} {words}"
        for number, words in ((still, STILL_IMPROVING), (first, BEST_AT_FIRST))
        if number
    ]
    return f" Open marks have doubtful trials: {' and '.join(marks)}." if marks else ""


def accuracy_figure(panels_: Sequence[Panel], name: str = "accuracy", opens: bool = False) -> Drawn:
    """Test accuracy against keep_fraction, for each network and protocol (Figs. 3, 8 and 9).

    Args:
        panels_: Curves of the sweep, from ``results.panels_of``.
        name: The figure's name.
        opens: Whether it opens the page, where it has to leave room for what is beside it.
    """
    title = "Accuracy against the data kept"
    if not panels_:
        return Missing(name, title, "There is no sweep yet; `raygrad sweep` retrains.")
    methods = sorted({method for p in panels_ for method in p.curves})
    return Figure(
        name=name,
        title=_opening_title(panels_) if opens else title,
        caption=_caption(panels_) + (_ON_A_PHONE if opens and len(panels_) > 1 else ""),
        alt=f"Line chart of test accuracy against the share of the training data kept, for "
        f"{', '.join(methods)}. The numbers are in the results table and in {name}.csv.",
        table=accuracy_table(panels_),
        draw=_draw_opening(panels_) if opens else partial(_draw_accuracy, panels_, _HEIGHT_IN),
    )
