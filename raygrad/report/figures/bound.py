"""The batch gradient's norm against the bound that the method rests on (the paper's Figure 1)."""

import math
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import MaxNLocator

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.intervals import CONFIDENCE, Interval, correlation_interval
from raygrad.report.style import MUTED, Layout, as_text, panels, plain_log
from raygrad.report.tables import Run
from raygrad.report.wording import percent

# The middle of the map: its ends would vanish on a dark or a light page.
_COLORS = LinearSegmentedColormap.from_list(
    "epochs", colormaps["plasma"](np.linspace(0.12, 0.8, 64))
)


def epoch_correlations(table: pa.Table) -> list[tuple[int, Interval]]:
    """Pearson's correlation of the two quantities over the batches of each epoch, by epoch.

    Over all epochs at once the correlation would be near 1 for no better reason than that both
    shrink as training goes on; within an epoch it says whether the bound orders batches.

    Args:
        table: ``bound.parquet``: epoch, batch, norm_of_sum, sum_of_norms.
    """
    epochs = table["epoch"].to_numpy()
    x, y = table["sum_of_norms"].to_numpy(), table["norm_of_sum"].to_numpy()
    out = []
    for epoch in np.unique(epochs):
        at = epochs == epoch
        if at.sum() >= 3 and np.ptp(x[at]) > 0 and np.ptp(y[at]) > 0:
            out.append((int(epoch), correlation_interval(x[at], y[at])))
    return out


def _draw(
    names: Sequence[str], tables: Sequence[pa.Table], layout: Layout
) -> matplotlib.figure.Figure:
    figure, axes = panels(layout, len(names), 3.1)
    last = max(int(t["epoch"].to_numpy().max()) for t in tables)
    points = None
    for name, table, ax in zip(names, tables, axes, strict=True):
        x, y = table["sum_of_norms"].to_numpy(), table["norm_of_sum"].to_numpy()
        points = ax.scatter(
            x,
            y,
            c=table["epoch"].to_numpy(),
            cmap=_COLORS,
            norm=Normalize(1, max(last, 2)),
            s=9,
            alpha=0.85,
            linewidth=0,
        )
        positive = np.concatenate([x[x > 0], y[y > 0]])
        low, high = float(positive.min()) * 0.8, float(positive.max()) * 1.25
        ax.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
        if high / low > 30:
            ax.set_xscale("log")
            ax.set_yscale("log")
            plain_log(ax.xaxis)
            plain_log(ax.yaxis)
        ax.set_xlim(float(x.min()) * 0.9, high)
        ax.set_ylim(low, high)
        ax.set_xlabel("sum of the examples' norms")
        ax.set_ylabel("norm of the batch's summed gradient")
        ax.set_title(as_text(name))
    if points is not None and last > 1:
        bar = figure.colorbar(points, ax=axes, fraction=0.04, pad=0.02)
        bar.set_label("epoch", fontsize=8)
        bar.locator = MaxNLocator(6, integer=True)
        bar.outline.set_visible(False)
    return figure


def _sentence(network: str, table: pa.Table) -> str:
    ratio = table["norm_of_sum"].to_numpy() / table["sum_of_norms"].to_numpy()
    text = f"{network}: the norm of the sum is {np.nanmedian(ratio):.2f} of the bound at the median"
    correlations = epoch_correlations(table)
    if not correlations:
        return text
    epoch, r = correlations[-1]
    text += f"; at epoch {epoch} the correlation over {r.n} batches is {r.mean:.2f}"
    if not math.isnan(r.low):
        text += f" ({percent(CONFIDENCE)} interval {r.low:.2f} to {r.high:.2f})"
    if len(correlations) > 1:
        means = [c.mean for _, c in correlations]
        text += f", and {min(means):.2f} to {max(means):.2f} over all epochs measured"
    return text


def bound_figure(run: Run) -> Drawn:
    """The norm of summed gradients against the sum of norms, a point a batch (Fig. 1, eq. 6).

    Args:
        run: The run.
    """
    title = "How tight the bound is"
    tables = {n: t for n, t in run.bound.items() if t.num_rows}
    if not tables:
        reason = "Training measured no batches for the bound (train/<network>/bound.parquet)."
        return Missing("bound", title, reason)
    names = list(tables)
    sentences = ". ".join(_sentence(n, t) for n, t in tables.items())
    return Figure(
        name="bound",
        title=title,
        caption=(
            "Each point is a random training batch. The method picks examples by their own norms, "
            "whose sum bounds the batch's step from above (dashed: where both are equal). The "
            f"closer to a line within one epoch, the better the bound orders batches. {sentences}."
        ),
        alt=f"Scatter plot of the summed gradient's norm against the sum of norms. {sentences}.",
        table=pa.concat_tables(
            [
                t.select(["epoch", "batch", "norm_of_sum", "sum_of_norms"]).append_column(
                    "network", pa.array([n] * t.num_rows)
                )
                for n, t in tables.items()
            ]
        ),
        draw=lambda layout: _draw(names, list(tables.values()), layout),
    )
