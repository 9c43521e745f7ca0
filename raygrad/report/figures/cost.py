"""What accuracy costs: training time against accuracy, and when scoring has paid for itself."""

import math
from collections.abc import Sequence

import matplotlib.figure
import pyarrow as pa

from raygrad.report.figures.accuracy import panel_title, scopes
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.curves import Curve, accuracy_axis
from raygrad.report.figures.legend import method_legend
from raygrad.report.results import Panel, Point
from raygrad.report.style import INK, Layout, as_text, panels, plain_log, series_styles
from raygrad.report.wording import duration, percent, protocol_words


def cost_table(panels_: Sequence[Panel]) -> pa.Table:
    """Mean training time and accuracy of every point, and the time saved against all the data.

    Returns:
        network, protocol, method, keep_fraction, train_time_s, test_accuracy, saved_s (a retraining
        on all the data less this one; null where there is none).
    """
    rows = []
    for panel in panels_:
        full_s = panel.full.train_time_s if panel.full else math.nan
        curves = {**panel.curves, **({"full data": (panel.full,)} if panel.full else {})}
        for method, points in curves.items():
            rows += [
                {
                    "network": panel.network,
                    "protocol": panel.protocol,
                    "method": method,
                    "keep_fraction": p.keep_fraction,
                    "train_time_s": p.train_time_s,
                    "test_accuracy": p.interval.mean,
                    "saved_s": None if math.isnan(full_s) else full_s - p.train_time_s,
                }
                for p in points
                if not math.isnan(p.train_time_s)
            ]
    return pa.Table.from_pylist(rows)


def _timed(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.train_time_s > 0]


def _curves(panel: Panel) -> list[Curve]:
    """Mean accuracies in percent, which the axis is made for."""
    of = [*panel.curves.values(), *([(panel.full,)] if panel.full is not None else [])]
    means = [[100 * p.interval.mean for p in _timed(points)] for points in of]
    return [Curve([0.0] * len(m), m, [], []) for m in means]


def _draw(panels_: Sequence[Panel], layout: Layout) -> matplotlib.figure.Figure:
    styles = series_styles(name for p in panels_ for name in p.curves)
    figure, axes = panels(layout, len(panels_), 3.0)
    for panel, ax in zip(panels_, axes, strict=True):
        accuracy_axis(ax, _curves(panel), panel.resolution)
        for name, points in panel.curves.items():
            style, timed = styles[name], _timed(points)
            ax.plot(
                [p.train_time_s for p in timed],
                [100 * p.interval.mean for p in timed],
                color=style.color,
                marker=style.marker,
                linestyle=style.dash,
                markeredgecolor="none",
            )
        if panel.full is not None and panel.full.train_time_s > 0:
            at = (panel.full.train_time_s, 100 * panel.full.interval.mean)
            ax.plot(*at, marker="*", color=INK, markersize=8, linestyle="none")
            ax.annotate(
                "all data", at, (-6, -11), textcoords="offset points", ha="right", fontsize=7.5
            )
        ax.set_xscale("log")
        plain_log(ax.xaxis)
        ax.set_xlabel("training time of one network (s)")
        ax.set_ylabel("test accuracy (%)")
        ax.set_title(as_text(panel_title(panel)))
    method_legend(figure, layout, styles)
    return figure


def cost_figure(panels_: Sequence[Panel]) -> Drawn:
    """Test accuracy against the time a retraining takes, for each network and protocol.

    Args:
        panels_: Curves of the sweep.
    """
    title = "Cost against accuracy"
    shown = [p for p in panels_ if any(_timed(points) for points in p.curves.values())]
    if not shown:
        return Missing("cost", title, "The sweep recorded no training times.")
    table = cost_table(shown)
    rows = table.to_pylist()
    cheapest = min((r for r in rows if r["method"] != "full data"), key=lambda r: r["train_time_s"])
    where = (cheapest["network"], cheapest["protocol"])
    full = [
        r for r in rows if r["method"] == "full data" and (r["network"], r["protocol"]) == where
    ]
    of = f" of {where[0]}, {protocol_words(where[1])}" if len(shown) > 1 else ""
    caption = (
        "Mean time that training on the kept data took, scoring not counted, against mean test "
        f"accuracy, {scopes(shown)}. The cheapest point{of} takes "
        f"{duration(cheapest['train_time_s'])} ({percent(cheapest['keep_fraction'])} of the data)"
    )
    caption += f", on all the data it takes {duration(full[0]['train_time_s'])}." if full else "."
    return Figure(
        name="cost",
        title=title,
        caption=caption,
        alt="Line chart of test accuracy against training time for each method.",
        table=table,
        draw=lambda layout: _draw(shown, layout),
    )
