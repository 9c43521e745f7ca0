"""What choosing examples gains over taking them at random, fraction by fraction."""

import math
from collections.abc import Sequence

import matplotlib.figure
import pyarrow as pa

from raygrad.report.figures.accuracy import fraction_axis, method_legend, panel_title
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.intervals import CONFIDENCE, difference_interval
from raygrad.report.results import BASELINE, FULL, Panel
from raygrad.report.style import MUTED, Layout, panels, series_styles
from raygrad.report.wording import percent


def gain_table(panels_: Sequence[Panel]) -> pa.Table:
    """Each method's accuracy less the random baseline's, with Welch's interval, in points."""
    rows = []
    for panel in panels_:
        baseline = {p.keep_fraction: p for p in panel.curves.get(BASELINE, ())}
        for method, points in panel.curves.items():
            for p in points:
                base = baseline.get(p.keep_fraction)
                if method == BASELINE or base is None:
                    continue
                d = difference_interval(p.values, base.values, CONFIDENCE, panel.resolution)
                rows.append(
                    {
                        "network": panel.network,
                        "protocol": panel.protocol,
                        "method": method,
                        "keep_fraction": p.keep_fraction,
                        "n": d.n,
                        "gain_points": 100 * d.mean,
                        "low": 100 * d.low,
                        "high": 100 * d.high,
                    }
                )
    return pa.Table.from_pylist(rows)


def _draw_gain(
    table: pa.Table, panels_: Sequence[Panel], layout: Layout
) -> matplotlib.figure.Figure:
    rows = table.to_pylist()
    shown = [
        p
        for p in panels_
        if any(r["network"] == p.network and r["protocol"] == p.protocol for r in rows)
    ]
    names = {r["method"] for r in rows}
    styles = {n: s for n, s in series_styles({*names, BASELINE}).items() if n != BASELINE}
    figure, axes = panels(layout, len(shown), 2.9)
    fractions = sorted({r["keep_fraction"] for r in rows})
    for panel, ax in zip(shown, axes, strict=True):
        ax.axhline(0, color=MUTED, linewidth=1.0)
        for name, style in styles.items():
            mine = [
                r
                for r in rows
                if (r["network"], r["protocol"], r["method"])
                == (panel.network, panel.protocol, name)
            ]
            x = [r["keep_fraction"] for r in mine]
            known = [r for r in mine if not math.isnan(r["low"])]
            ax.fill_between(
                [r["keep_fraction"] for r in known],
                [r["low"] for r in known],
                [r["high"] for r in known],
                color=style.color,
                alpha=0.16,
                linewidth=0,
            )
            ax.plot(
                x,
                [r["gain_points"] for r in mine],
                color=style.color,
                marker=style.marker,
                linestyle=style.dash,
                markeredgecolor="none",
            )
        fraction_axis(ax, [*fractions, FULL])
        ax.set_ylabel(f"gain over {BASELINE} (points)")
        ax.set_title(panel_title(panel))
    method_legend(figure, layout, styles)
    return figure


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
    best = max(rows, key=lambda r: r["gain_points"])
    worst = min(rows, key=lambda r: r["gain_points"])
    return Figure(
        name="gain",
        title=title,
        caption=(
            f"Mean accuracy less {BASELINE}'s at the same fraction, with Welch's "
            f"{percent(CONFIDENCE)} interval for one comparison: a band that crosses zero shows no "
            f"difference. Largest gain {best['gain_points']:+.2f} points ({best['method']} at "
            f"{percent(best['keep_fraction'])}), largest loss {worst['gain_points']:+.2f} "
            f"({worst['method']} at {percent(worst['keep_fraction'])})."
        ),
        alt=f"Line chart of each method's accuracy less {BASELINE}'s against the share kept.",
        table=table,
        draw=lambda layout: _draw_gain(table, panels_, layout),
    )
