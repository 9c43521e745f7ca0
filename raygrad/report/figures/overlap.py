"""Do networks find the same examples hard? Overlap of their top-k sets (the paper's Figure 6)."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.report.examples import hardness_order
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.ranks import draw_rank_curves, sampled_ranks
from raygrad.report.tables import Run, Scores, positions_of
from raygrad.report.wording import count, percent, top_words
from raygrad.selection.analysis import overlap, random_overlap

_LOOK = (0.01, 0.05)  # the caption states the overlap at these shares of the examples


def shared_scores(a: Scores, b: Scores, column: str) -> tuple[np.ndarray, np.ndarray]:
    """One column of two networks over the examples that both have scored, in the order of ``a``."""
    at = positions_of(a.table["key"], b.table)
    have = pc.is_valid(at)
    places = at.filter(have).to_numpy()
    return a.values(column)[have.to_numpy(zero_copy_only=False)], b.values(column)[places]


def overlap_figure(run: Run, column: str) -> Drawn:
    """Overlap of the top-k sets of each pair of networks, with the random baseline (Fig. 6).

    Args:
        run: The run.
        column: Which score.
    """
    title = "Do networks agree on what is hard?"
    scored = {n: s for n, s in run.scores.items() if column in s.columns}
    if len(scored) < 2:
        reason = f"It takes the {column} of at least two networks."
        return Missing("overlap", title, reason)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sentences = []
    size = 0
    for (n, a), (m, b) in itertools.combinations(scored.items(), 2):
        x, y = shared_scores(a, b, column)
        if len(x) < 2:
            continue
        ranks = sampled_ranks(len(x))
        shared = overlap(hardness_order(x), hardness_order(y))
        curves[f"{n} and {m}"] = (ranks, shared[ranks - 1])
        size = max(size, len(x))
        tops = []
        for share in _LOOK:
            k = max(1, math.floor(share * len(x)))
            words = top_words(share, k, len(x))
            tops.append(f"{percent(shared[k - 1])} of the hardest {words}")
        sentences.append(f"{n} and {m} share {' and '.join(tops)}.")
    if not curves:
        return Missing("overlap", title, "The networks have scored no example in common.")
    ranks = sampled_ranks(size)
    baselines = {"two random sets": (ranks, random_overlap(size)[ranks - 1])}
    text = " ".join(sentences)
    return Figure(
        name="overlap",
        title=title,
        caption=(
            f"Share of the k examples of the largest {column} that two networks have in common; "
            f"dashed, what two random sets of that size share on average (k of {count(size)}). "
            f"{text}"
        ),
        alt=f"Line chart of the overlap of networks' hardest examples against k. {text}",
        table=_table({**curves, **baselines}),
        draw=lambda layout: draw_rank_curves(curves, baselines, "share in common", layout),
    )


def _table(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pa.Table:
    return pa.concat_tables(
        [
            pa.table({"curve": [name] * len(k), "k": k, "overlap": v})
            for name, (k, v) in curves.items()
        ]
    )
