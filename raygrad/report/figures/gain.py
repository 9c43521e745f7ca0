"""What choosing examples gains over taking them at random, fraction by fraction."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from raygrad.report.comparing import comparisons
from raygrad.report.figures.accuracy import panel_title, scopes
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.curves import Curve, beside, draw_curve, fraction_axis
from raygrad.report.figures.legend import method_legend
from raygrad.report.intervals import CONFIDENCE
from raygrad.report.results import BASELINE, Panel
from raygrad.report.style import MUTED, Layout, as_text, panels, series_styles
from raygrad.report.wording import percent, protocol_words

_LINEAR_TO = 8.0  # points


def gain_table(panels_: Sequence[Panel]) -> pa.Table:
    """Each method's accuracy less the random baseline's, in points, as the findings compare them.

    ``low`` and ``high`` leave zero out exactly where a finding says better or worse.
    """
    rows = [
        {
            "network": panel.network,
            "protocol": panel.protocol,
            "method": c.method,
            "keep_fraction": c.keep_fraction,
            "n": c.gain.n,
            "gain_points": 100 * c.gain.mean,
            "low": 100 * c.gain.low,
            "high": 100 * c.gain.high,
        }
        for panel in panels_
        for c in comparisons(panel)
    ]
    return pa.Table.from_pylist(rows)


def _draw_gain(
    table: pa.Table, panels_: Sequence[Panel], layout: Layout
) -> matplotlib.figure.Figure:
    rows = table.to_pylist()
    shown = [p for p in panels_ if any((r["network"], r["protocol"]) == _place(p) for r in rows)]
    names = {r["method"] for r in rows}
    styles = {n: s for n, s in series_styles({*names, BASELINE}).items() if n != BASELINE}
    figure, axes = panels(layout, len(shown), 2.9)
    fractions = sorted({r["keep_fraction"] for r in rows})
    for panel, ax in zip(shown, axes, strict=True):
        ax.axhline(0, color=MUTED, linewidth=1.0)
        of_panel = [r for r in rows if (r["network"], r["protocol"]) == _place(panel)]
        for place, (name, style) in enumerate(styles.items()):
            mine = [r for r in of_panel if r["method"] == name]
            curve = Curve(
                shares=[r["keep_fraction"] for r in mine],
                means=[r["gain_points"] for r in mine],
                lows=[r["low"] for r in mine],
                highs=[r["high"] for r in mine],
            )
            draw_curve(ax, curve, style, beside(ax, place, len(styles)))
        fraction_axis(ax, fractions)
        _points_axis(ax)
        ax.set_ylabel(f"gain over {BASELINE} (points)")
        ax.set_title(as_text(panel_title(panel)))
    method_legend(figure, layout, styles)
    return figure


def _points_axis(ax: Axes) -> None:
    """Where points of tens would hide those below one, the axis is logarithmic beyond one."""
    largest = max(abs(end) for end in ax.get_ylim())
    if largest <= _LINEAR_TO:
        return
    ax.set_yscale("symlog", linthresh=1.0, linscale=0.6)
    ticks = [t for t in (1, 3, 10, 30, 100) if t <= largest]
    ax.yaxis.set_major_locator(FixedLocator([-t for t in ticks] + [0, *ticks]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda points, _: f"{points:+g}" if points else "0"))


def _place(panel: Panel) -> tuple[str, str]:
    return panel.network, panel.protocol


def _extremes(rows: Sequence[Mapping[str, Any]], several: bool) -> str:
    """The largest and the smallest gain, under names that fit their signs."""

    def words(row: Mapping[str, Any]) -> str:
        where = f", {row['network']}, {protocol_words(row['protocol'])}" if several else ""
        at = f"{row['method']} at {percent(row['keep_fraction'])}{where}"
        return f"{row['gain_points']:+.2f} points ({at})"

    best = max(rows, key=lambda r: r["gain_points"])
    worst = min(rows, key=lambda r: r["gain_points"])
    first = "Largest gain" if best["gain_points"] > 0 else "Smallest loss"
    if best is worst:
        return f"The mean difference is {words(best)}."
    last = "largest loss" if worst["gain_points"] < 0 else "smallest gain"
    return f"{first} {words(best)}, {last} {words(worst)}."


def gain_figure(panels_: Sequence[Panel]) -> Drawn:
    """What each method gains or loses against random at the same fraction, with intervals.

    Args:
        panels_: Curves of the sweep, from ``results.panels_of``.
    """
    title = "Gain over random"
    table = gain_table(panels_)
    if not table.num_rows:
        reason = f"It takes a sweep with {BASELINE} and another method at the same fraction."
        return Missing("gain", title, reason)
    rows = table.to_pylist()
    return Figure(
        name="gain",
        title=title,
        caption=(
            f"Mean accuracy less {BASELINE}'s at the same fraction, {scopes(panels_)}. Bars are "
            "the intervals of the findings, widened by Holm's method so that all of one panel hold "
            f"together with {percent(CONFIDENCE)}: one that crosses zero shows no difference. "
            "Where the axis reaches far it is logarithmic beyond one point. "
            f"{_extremes(rows, several=len(panels_) > 1)}"
        ),
        alt=f"Line chart of each method's accuracy less {BASELINE}'s against the share kept.",
        table=table,
        draw=lambda layout: _draw_gain(table, panels_, layout),
    )
