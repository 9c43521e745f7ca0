"""How much of all gradient norm the hardest examples hold: whether few examples carry the data."""

import math

import matplotlib.figure
import numpy as np
import pyarrow as pa

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.curves import fraction_axis
from raygrad.report.figures.ranks import sampled_ranks
from raygrad.report.style import BLUE, MUTED, Layout, new_figure
from raygrad.report.tables import Run
from raygrad.report.wording import count, percent, top_words

_LOOK = (0.01, 0.1)
_LEFT_OF = 30.0  # percent: a curve that high has room on its left
_HEIGHT_IN, _OPENING_IN = 3.2, 2.75


def held_shares(values: np.ndarray) -> np.ndarray | None:
    """The share of the sum of all scores that the k largest hold, for every k, float64 ``[N]``.

    Args:
        values: Scores ``[M]``; those that are not finite are left out, so N is at most M.

    Returns:
        The k-th, from 1, is at k - 1; None where a score is negative or none is positive: then
        there is no such share.
    """
    finite = values[np.isfinite(values)]
    if not len(finite) or finite.min() < 0 or finite.max() <= 0:
        return None
    # In units of the largest, the sum of a million scores near the end of float64 stays finite.
    summed = np.cumsum(-np.sort(-(finite / finite.max())))
    return np.asarray(summed / summed[-1])


def concentration_sentence(values: np.ndarray, column: str) -> str:
    """What share of the scores' sum the hardest 1% and 10% hold, without a full stop."""
    held = held_shares(values)
    finite = int(np.isfinite(values).sum())
    if held is None:
        return f"{count(finite)} examples have a finite {column}"
    one, ten = (percent(_at(held, share)) for share in _LOOK)
    shares = [top_words(share, _rank(len(held), share), len(held)) for share in _LOOK]
    return (
        f"The hardest {shares[0]} of {count(finite)} examples hold {one} of all {column}, "
        f"the hardest {shares[1]} {ten}"
    )


def _rank(size: int, share: float) -> int:
    return max(1, math.floor(share * size))


def _at(held: np.ndarray, share: float) -> float:
    return float(held[_rank(len(held), share) - 1])


def _draw(table: pa.Table, layout: Layout, height_in: float) -> matplotlib.figure.Figure:
    x, y = table["share_of_examples"].to_numpy(), 100 * table["share_of_scores"].to_numpy()
    figure = new_figure(layout, height_in)
    ax = figure.add_subplot()
    ax.plot(x, y, color=BLUE)
    ax.plot(x, 100 * x, color=MUTED, linestyle=(0, (4, 2)), linewidth=1.1)
    # Above the axes: the curve may lie anywhere within them.
    ax.set_title("dashed: if all were equally hard", loc="right", fontsize=7.5, color=MUTED)
    number = table["k"][-1].as_py()
    for share in _LOOK:
        rank = _rank(number, share)
        at = int(np.searchsorted(table["k"].to_numpy(), rank))
        ax.plot(x[at], y[at], marker="o", color=BLUE, markersize=5)
        ax.annotate(
            f"{top_words(share, rank, number)} hold {percent(y[at] / 100)}",
            (x[at], y[at]),
            xytext=(-6 if y[at] > _LEFT_OF else 0, 6),
            textcoords="offset points",
            ha="right" if y[at] > _LEFT_OF else "left",
            fontsize=8,
        )
    fraction_axis(ax, [max(float(x[0]), 1e-3), 1.0])
    ax.set_xlabel("hardest examples")
    ax.set_ylim(0, 104)
    ax.set_ylabel("share of the sum (%)")
    return figure


def concentration_figure(run: Run, network: str, column: str, opens: bool = False) -> Drawn:
    """The share of the summed score that the hardest k hold, for all k.

    Args:
        run: The run.
        network: Whose scores.
        column: Which score.
        opens: Whether it opens the page.
    """
    title = "How few examples carry the gradient"
    values = run.scores[network].values(column)
    held = held_shares(values)
    if held is None or len(held) < 2:
        reason = f"It takes a {column} that is never negative and somewhere positive."
        return Missing("concentration", title, reason)
    marked = [_rank(len(held), share) for share in _LOOK]
    ranks = np.unique([*sampled_ranks(len(held)), *marked])
    table = pa.table(
        {
            "k": ranks,
            "share_of_examples": ranks / len(held),
            "share_of_scores": held[ranks - 1],
        }
    )
    sentence = concentration_sentence(values, column)
    missing = len(values) - len(held)
    without = f" {count(missing)} without a finite score are left out." if missing else ""
    return Figure(
        name="concentration",
        title=title,
        caption=(
            f"{sentence}. The further the curve lies above the dashed line, the more a subset "
            f"drawn by {column} differs from a random one.{without}"
        ),
        alt=f"Curve of the share of summed {column} against the share of the examples. {sentence}.",
        table=table,
        draw=lambda layout: _draw(table, layout, _OPENING_IN if opens else _HEIGHT_IN),
    )
