"""How much of the accuracy a share of the data gives, data set by data set."""

from collections.abc import Mapping

import matplotlib.figure
import pyarrow as pa

from raygrad.report.figures.accuracy import panel_title, scopes
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.curves import fraction_axis
from raygrad.report.figures.legend import method_legend
from raygrad.report.results import BASELINE, FULL, Panel
from raygrad.report.style import INK, Layout, panels, series_styles
from raygrad.report.wording import listed, percent


def relative_table(chosen: Mapping[str, Panel]) -> pa.Table:
    """Accuracy over the full data's, of random and of the best other method at each fraction.

    Args:
        chosen: One panel a run, by the run's name; those without full data are left out.

    Returns:
        run, series (``random`` or ``best other``), method, keep_fraction, relative.
    """
    rows = []
    for run, panel in chosen.items():
        if panel.full is None:
            continue
        full = panel.full.interval.mean
        best: dict[float, tuple[float, str]] = {}
        for method, points in panel.curves.items():
            for p in points:
                value = (p.interval.mean / full, method)
                if method == BASELINE:
                    rows.append((run, BASELINE, method, p.keep_fraction, value[0]))
                else:
                    best[p.keep_fraction] = max(best.get(p.keep_fraction, value), value)
        rows += [(run, "best other", m, f, v) for f, (v, m) in sorted(best.items())]
    names = ("run", "series", "method", "keep_fraction", "relative")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


def _draw(table: pa.Table, layout: Layout) -> matplotlib.figure.Figure:
    rows = table.to_pylist()
    series = [s for s in (BASELINE, "best other") if any(r["series"] == s for r in rows)]
    styles = series_styles({r["run"] for r in rows})
    figure, axes = panels(layout, len(series), 3.2)
    for name, ax in zip(series, axes, strict=True):
        ax.axhline(100, color=INK, linewidth=0.9)
        for run, style in styles.items():
            mine = [r for r in rows if r["series"] == name and r["run"] == run]
            ax.plot(
                [*(r["keep_fraction"] for r in mine), FULL],
                [*(100 * r["relative"] for r in mine), 100],
                color=style.color,
                marker=style.marker,
                linestyle=style.dash,
                markeredgecolor="none",
            )
        fraction_axis(ax, [FULL, *(r["keep_fraction"] for r in rows)])
        ax.set_ylabel("accuracy, % of the full data's")
        ax.set_title(BASELINE if name == BASELINE else "the best other method at each fraction")
    method_legend(figure, layout, styles)
    return figure


def relative_figure(chosen: Mapping[str, Panel]) -> Drawn:
    """Each run's accuracy relative to its own on the full data: random, and the best method.

    Args:
        chosen: One panel a run, by the run's name.
    """
    title = "How simple is each data set?"
    table = relative_table(chosen)
    if not table.num_rows:
        return Missing("compared-relative", title, "No run has a sweep with the full data in it.")
    rows = [r for r in table.to_pylist() if r["series"] == BASELINE]
    reaches = []
    for run in dict.fromkeys(r["run"] for r in rows):
        first = min((r for r in rows if r["run"] == run), key=lambda r: r["keep_fraction"])
        reaches.append(
            f"{run} {percent(first['relative'])} with {percent(first['keep_fraction'])} of the data"
        )
    which = "; ".join(
        f"{run}: {panel_title(panel)}, {scopes([panel])}" for run, panel in chosen.items()
    )
    return Figure(
        name="compared-relative",
        title=title,
        caption=(
            "Test accuracy relative to the same network's on all the data. The sooner random's "
            "curve comes near 100%, the simpler the data set; the further the best other method "
            "lies above it, the more of it is redundant. "
            f"Random reaches {listed(reaches)}. ({which}.)"
        ),
        alt="Line charts of relative accuracy against the share of the data kept, a line a run.",
        table=table,
        draw=lambda layout: _draw(table, layout),
    )
