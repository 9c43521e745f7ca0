"""The data on a map: how hard an example is at the end, against how unsettled it was in training.

After Swayamdipta et al., "Dataset Cartography" (arXiv 2009.10795), with the loss at the end in
place of their confidence, and dyn_unc (He et al., arXiv 2306.05175) as the variability.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import numpy as np
import pyarrow as pa
from matplotlib.colors import LinearSegmentedColormap, LogNorm

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.galleries import gallery_figure
from raygrad.report.figures.images import describe
from raygrad.report.style import BLUE, INK, SKY, VERMILLION, Layout, new_figure, plain_log
from raygrad.report.tables import Run, Scores, matched, positions_of
from raygrad.report.thumbnails import Thumbnail
from raygrad.report.wording import count, top_words

UNCERTAINTY = "dyn_unc"
_BINS = 60
_ROOM = 0.08  # of the axis of loss, above and below
_SHOWN = 10
_HARD, _SETTLED = 0.01, 0.5
_MANY = 100  # contradicted labels, whose marks would hide the map
_COLORS = LinearSegmentedColormap.from_list("examples", [SKY, BLUE, "#10355c"])


def _dynamics(run: Run, network: str, column: str) -> np.ndarray | None:
    """A column of the network's training dynamics by row of its score table, NaN where missing."""
    table = run.dynamics.get(network)
    if table is None or not {"key", column} <= set(table.column_names):
        return None
    return matched(table[column], positions_of(run.scores[network].table["key"], table))


def _hardness(scores: Scores) -> np.ndarray | None:
    return scores.values("loss") if "loss" in scores.columns else None


def _known(run: Run, network: str) -> np.ndarray:
    """Positions of the examples that have a place on the map, infinite losses too."""
    loss = _hardness(run.scores[network])
    unsettled = _dynamics(run, network, UNCERTAINTY)
    if loss is None or unsettled is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(~np.isnan(loss) & ~np.isnan(unsettled))


def _hard_size(number: int) -> int:
    """How many of so many examples the hard corner is taken from: twice as many as are shown."""
    return max(min(2 * _SHOWN, number), int(_HARD * number))


def corners(run: Run, network: str) -> list[tuple[str, np.ndarray]]:
    """The map's three corners: a name each, and the positions of up to ten examples there.

    Never learned: of the 1% of the largest loss (of few examples the 20), those of the least
    uncertainty. Unsettled: the largest uncertainty of all. Easy: the smallest sum of both ranks.

    Args:
        run: The run.
        network: Whose scores and dynamics; without either there is no corner.
    """
    loss = _hardness(run.scores[network])
    unsettled = _dynamics(run, network, UNCERTAINTY)
    known = _known(run, network)
    if loss is None or unsettled is None or not len(known):
        return []
    by_loss = known[np.argsort(-loss[known], kind="stable")]
    hard = by_loss[: _hard_size(len(known))]
    by_unsettled = known[np.argsort(-unsettled[known], kind="stable")]
    place = np.empty(len(loss), dtype=np.int64)
    place[by_loss] = np.arange(len(by_loss))
    place[by_unsettled] += np.arange(len(by_unsettled))
    easy = known[np.argsort(-place[known], kind="stable")]
    return [
        ("hard and never unsettled", hard[np.argsort(unsettled[hard], kind="stable")][:_SHOWN]),
        ("most unsettled", by_unsettled[:_SHOWN]),
        ("easy all along", easy[:_SHOWN]),
    ]


def _places(loss: np.ndarray) -> np.ndarray:
    """The loss as it is drawn: no smaller than its 0.5% quantile, so that zeros do not rule."""
    finite = loss[np.isfinite(loss)]
    positive = finite[finite > 0]
    least = max(float(np.quantile(finite, 0.005)), float(positive.min()))
    return np.clip(loss, least, float(positive.max()))


@dataclass(frozen=True)
class Cells:
    """The map as counts: edges along both axes and the examples of each cell, loss by row."""

    uncertainty: np.ndarray
    loss: np.ndarray
    counts: np.ndarray

    def table(self) -> pa.Table:
        """One row a cell that holds examples."""
        y, x = np.nonzero(self.counts)
        return pa.table(
            {
                f"{UNCERTAINTY}_from": self.uncertainty[x],
                f"{UNCERTAINTY}_to": self.uncertainty[x + 1],
                "loss_from": self.loss[y],
                "loss_to": self.loss[y + 1],
                "examples": self.counts[y, x],
            }
        )


def cells_of(unsettled: np.ndarray, loss: np.ndarray) -> Cells:
    """Counts examples in cells: even ones along uncertainty, of even ratio along the loss.

    Args:
        unsettled: Finite, float64 ``[N]``, not all equal.
        loss: Finite and positive, float64 ``[N]``.
    """
    low, high = float(loss.min()), float(loss.max())
    edges = np.geomspace(low, high, _BINS + 1) if high > low else np.array([low / 2, low * 2])
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    counts, x_edges, y_edges = np.histogram2d(unsettled, loss, bins=(_BINS, edges))
    return Cells(x_edges, y_edges, counts.T.astype(np.int64))


def _draw(
    cells: Cells, unsettled: np.ndarray, place: np.ndarray, wrong: np.ndarray, layout: Layout
) -> matplotlib.figure.Figure:
    figure = new_figure(layout, 4.0 if layout.columns > 1 else 3.6)
    ax = figure.add_subplot()
    image = ax.pcolormesh(
        cells.uncertainty,
        cells.loss,
        np.ma.masked_equal(cells.counts, 0),
        cmap=_COLORS,
        norm=LogNorm(1, max(2.0, cells.counts.max())),
        rasterized=True,
    )
    if wrong.any():
        some = np.flatnonzero(wrong)
        some = some[np.linspace(0, len(some) - 1, min(len(some), 400)).astype(np.int64)]
        ax.plot(
            unsettled[some],
            place[some],
            linestyle="none",
            marker="x",
            markersize=3.5 if len(some) < _MANY else 2.0,
            markeredgewidth=0.9 if len(some) < _MANY else 0.5,
            color=VERMILLION,
            label="label contradicted at the end",
        )
        figure.legend(loc="outside upper left")
    ax.set_yscale("log")
    # Room for the words in the corners, above and below what is drawn.
    low, high = cells.loss[0], cells.loss[-1]
    ax.set_ylim(low / (high / low) ** _ROOM, high * (high / low) ** _ROOM)
    ax.set_xlabel(f"uncertainty while training ({UNCERTAINTY})")
    ax.set_ylabel("loss at the end")
    corner: dict[str, Any] = {
        "fontsize": 8,
        "color": INK,
        "transform": ax.transAxes,
        "style": "italic",
    }
    ax.text(0.02, 0.98, "never learned", va="top", **corner)
    ax.text(0.98, 0.98, "ambiguous", va="top", ha="right", **corner)
    ax.text(0.02, 0.02, "easy", va="bottom", **corner)
    bar = figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
    bar.set_label("examples", fontsize=8)
    bar.outline.set_visible(False)
    plain_log(ax.yaxis)
    plain_log(bar.ax.yaxis)
    return figure


def cartography_figure(run: Run, network: str) -> Drawn:
    """Loss at the end against uncertainty in training, a cell a number of examples.

    Args:
        run: The run.
        network: Whose scores and dynamics.
    """
    title = "A map of the data"
    scores = run.scores[network]
    loss, unsettled = _hardness(scores), _dynamics(run, network, UNCERTAINTY)
    if loss is None or unsettled is None:
        reason = f"It takes {network}'s loss, and its training dynamics (`--train.dynamics`)."
        return Missing("cartography", title, reason)
    known = np.isfinite(loss) & np.isfinite(unsettled)
    loss, unsettled, wrong = loss[known], unsettled[known], scores.contradicted[known]
    if not (loss > 0).any() or np.ptp(unsettled) == 0:
        reason = f"Neither the loss nor {UNCERTAINTY} may be the same of all examples."
        return Missing("cartography", title, reason)
    steady = unsettled <= np.quantile(unsettled, _SETTLED)
    never = int((wrong & steady).sum())
    sentence = (
        f"{count(int(wrong.sum()))} of {count(len(loss))} examples end with their label "
        f"contradicted; in the steadier half, never learned, where wrong labels gather, "
        f"{'lies none' if not never else f'lie {count(never)}'} of these."
    )
    place = _places(loss)
    cells = cells_of(unsettled, place)
    return Figure(
        name="cartography",
        title=title,
        caption=(
            f"Each training example of {network} by its loss at the end and by how much the "
            f"probability of its label moved while training ({UNCERTAINTY}). Below left is what "
            "was learned at once and can be thinned out; right, what training went to and fro on; "
            f"above left, what it never learned. {sentence}"
        ),
        alt=f"Density map of loss against uncertainty. {sentence}",
        table=cells.table(),
        draw=lambda layout: _draw(cells, unsettled, place, wrong, layout),
    )


def corners_figure(run: Run, network: str, thumbnails: Mapping[str, Thumbnail]) -> Drawn:
    """Images from the corners of the map.

    Args:
        run: The run.
        network: Whose scores and dynamics.
        thumbnails: Pictures by key.
    """
    title = "From the corners of the map"
    rows = corners(run, network)
    examples = describe(run, run.scores[network], "loss", rows) if rows else []
    examples = [e for e in examples if e.key in thumbnails]
    if not examples:
        return Missing("corners", title, "It takes the map, and images that can be read.")
    number = len(_known(run, network))
    hard = top_words(_HARD, _hard_size(number), number)
    caption = (
        f"Hard and never unsettled: of the {hard} of the largest loss, the least "
        f"{UNCERTAINTY}. Most unsettled: the largest {UNCERTAINTY}. Easy all along: the least of "
        "both. Under each its class, what was predicted instead, and its loss."
    )
    return gallery_figure("corners", title, caption, "loss", examples, thumbnails, "corner")
