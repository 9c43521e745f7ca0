"""Label entropy of the hardest k examples (the paper's Figures 7 and 12)."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raygrad.report.examples import hardness_order
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.ranks import draw_rank_curves, sampled_ranks
from raygrad.report.tables import Run
from raygrad.report.wording import count, percent
from raygrad.selection.analysis import label_entropy

_LOOK = 0.05  # the caption states the entropy of this share of the examples


def _curves(run: Run, column: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    out = {}
    for network, scores in run.scores.items():
        if column in scores.columns and len(scores.labels):
            order = hardness_order(scores.values(column))
            ranks = sampled_ranks(len(order))
            nats = label_entropy(order, scores.labels)[ranks - 1]
            out[network] = (ranks, nats / math.log(2))
    return out


def balanced_entropy(num_classes: int, ranks: np.ndarray) -> np.ndarray:
    """The most that k examples of ``num_classes`` classes can have, in bits, ``[K]``.

    Below ``num_classes`` examples not every class can be there: then k classes have one each.
    """
    whole, rest = ranks // num_classes, ranks % num_classes
    upper = np.where(rest > 0, rest * (whole + 1) * np.log2((whole + 1) / ranks), 0.0)
    safe = np.maximum(whole, 1)
    lower = np.where(whole > 0, (num_classes - rest) * whole * np.log2(safe / ranks), 0.0)
    return -(upper + lower) / ranks


def entropy_figure(runs: Sequence[Run], name: str = "entropy") -> Drawn:
    """Label entropy of the top k for all k, with the balanced baseline (Figs. 7 and 12).

    Args:
        runs: One run, whose networks are overlaid, or several, whose main networks are.
        name: The figure's name.
    """
    title = "Label entropy of the hardest examples"
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    baselines: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for run in runs:
        column = run.score_column
        mine = _curves(run, column) if column else {}
        if len(runs) > 1:
            main = mine.get(run.main_network or "")
            mine = {run.name: main} if main is not None else {}
        curves |= mine
        for k, _ in mine.values():
            even = f"balanced, {count(run.num_classes)} classes"
            if even not in baselines or k[-1] > baselines[even][0][-1]:
                baselines[even] = (k, balanced_entropy(run.num_classes, k))
    if not curves:
        return Missing(name, title, "It takes the scores of a trained network.")
    sentences = [_sentence(curve, k, h) for curve, (k, h) in curves.items()]
    column = runs[0].score_column
    return Figure(
        name=name,
        title=title,
        caption=(
            f"Entropy of the class labels among the k examples of the largest {column}; dashed, "
            "what evenly mixed classes would have. Where a curve lies below it, the hardest "
            "examples come from few classes, and keeping them skews the data. "
            f"{' '.join(sentences)}"
        ),
        alt=f"Line chart of label entropy against k on a logarithmic axis. {' '.join(sentences)}",
        table=_table(curves, baselines),
        draw=lambda layout: draw_rank_curves(curves, baselines, "label entropy (bits)", layout),
    )


def _sentence(name: str, k: np.ndarray, h: np.ndarray) -> str:
    look = max(1, math.floor(_LOOK * k[-1]))
    at = int(np.searchsorted(k, look))
    return (
        f"{name}: {h[at]:.2f} bits among the hardest {count(int(k[at]))} "
        f"({percent(k[at] / k[-1])}), {h[-1]:.2f} among all."
    )


def _table(
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    baselines: dict[str, tuple[np.ndarray, np.ndarray]],
) -> pa.Table:
    return pa.concat_tables(
        [
            pa.table({"curve": [name] * len(k), "k": k, "entropy_bits": h})
            for name, (k, h) in {**curves, **baselines}.items()
        ]
    )
