"""Score distributions by class: which classes are hard, and how much they overlap."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import pyarrow as pa

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.style import BLUE, INK, MUTED, PAPER, Layout, as_text, new_figure, plain_log
from raygrad.report.tables import Run
from raygrad.report.wording import count, listed

_SHOWN = 12  # of more classes than twice this, the hardest and the easiest are drawn
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def class_quantiles(values: np.ndarray, labels: np.ndarray) -> pa.Table:
    """Count and quantiles of a score in each class, by falling median.

    Args:
        values: One score an example, float ``[N]``; those that are not finite are left out.
        labels: Class of each example, int64 ``[N]``.

    Returns:
        label, n, q05, q25, q50, q75, q95.
    """
    finite = np.isfinite(values)
    values, labels = values[finite], labels[finite]
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    rows = []
    for label, part in zip(classes, np.split(values[order], starts[1:]), strict=True):
        quantiles = np.quantile(part, _QUANTILES)
        names = [f"q{round(100 * q):02d}" for q in _QUANTILES]
        rows.append(
            {
                "label": int(label),
                "n": len(part),
                **dict(zip(names, map(float, quantiles), strict=True)),
            }
        )
    return pa.Table.from_pylist(sorted(rows, key=lambda r: (-r["q50"], r["label"])))


def _draw(
    rows: Sequence[dict[str, float]], names: Sequence[str], column: str, layout: Layout
) -> matplotlib.figure.Figure:
    figure = new_figure(layout, 0.9 + 0.21 * len(rows))
    ax = figure.add_subplot()
    y = np.arange(len(rows))[::-1]
    for place, row in zip(y, rows, strict=True):
        ax.plot([row["q05"], row["q95"]], [place, place], color=MUTED, linewidth=1.0)
        ax.plot(
            [row["q25"], row["q75"]],
            [place, place],
            color=BLUE,
            linewidth=5,
            solid_capstyle="butt",
        )
    ax.plot(
        [r["q50"] for r in rows],
        y,
        linestyle="none",
        marker="o",
        markersize=4.5,
        color=PAPER,
        markeredgecolor=INK,
        markeredgewidth=1.1,
    )
    if min(r["q05"] for r in rows) > 0:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    ax.set_yticks(y, [as_text(n[:18]) for n in names])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    ax.set_ylim(-0.8, len(rows) - 0.2)
    ax.set_xlabel(as_text(column))
    return figure


def classes_figure(run: Run, network: str, column: str) -> Drawn:
    """The spread of a score in each class: median, middle half, and 5% to 95%.

    Args:
        run: The run.
        network: Whose scores.
        column: Which score.
    """
    title = "Scores by class"
    scores = run.scores[network]
    table = class_quantiles(scores.values(column), scores.labels)
    if table.num_rows < 2:
        return Missing("classes", title, "The scores cover fewer than two classes.")
    rows = table.to_pylist()
    names = [run.class_name(r["label"]) for r in rows]
    table = table.append_column("class", pa.array(names))
    hardest, easiest = rows[0], rows[-1]
    caption = (
        f"{column} of {network} in each class: a ring at the median, a bar over the middle half, a "
        f"line from 5% to 95%. Hardest at the median: {names[0]} ({hardest['q50']:.3g}); easiest: "
        f"{names[-1]} ({easiest['q50']:.3g})."
    )
    if len(rows) > 2 * _SHOWN:
        caption += f" Of {count(len(rows))} classes, the {_SHOWN} hardest and {_SHOWN} easiest."
        rows, names = rows[:_SHOWN] + rows[-_SHOWN:], names[:_SHOWN] + names[-_SHOWN:]
    return Figure(
        name="classes",
        title=title,
        caption=caption,
        alt=f"Range plot of {column} by class, hardest class first: {listed(names[:5])} lead.",
        table=table,
        draw=lambda layout: _draw(rows, names, column, layout),
    )
