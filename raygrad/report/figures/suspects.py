"""Examples that contradict their label: by the loss at the end, and by the margin over training."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from raygrad.report.examples import hardest_first
from raygrad.report.figures.base import Drawn, Missing
from raygrad.report.figures.galleries import PER_NETWORK, gallery_figure
from raygrad.report.figures.images import describe
from raygrad.report.tables import Run, Scores, matched, positions_of
from raygrad.report.thumbnails import Thumbnail
from raygrad.report.wording import count, percent


def suspects(scores: Scores, values: np.ndarray) -> np.ndarray:
    """Positions of wrongly classified examples, the largest values first.

    A network that has learned the data and still gives a label almost no chance has either met a
    hard example or a wrong label; a person has to look.
    """
    order = hardest_first(values)
    return order[scores.contradicted[order]][:PER_NETWORK]


def suspicions(run: Run, network: str, column: str) -> dict[str, np.ndarray]:
    """What wrong labels are looked for by: the loss at the end, and the margin over training.

    The margin, aum of Pleiss et al. (arXiv 2001.10528), also finds labels that training learned by
    heart in the end; it takes training's dynamics. Without a loss the main score stands for it.
    """
    scores = run.scores[network]
    by = "loss" if "loss" in scores.columns else column
    out = {by: scores.values(by)}
    dynamics = run.dynamics.get(network)
    if dynamics is not None and {"key", "aum"} <= set(dynamics.column_names):
        out["aum"] = matched(dynamics["aum"], positions_of(scores.table["key"], dynamics))
    return out


def suspect_positions(run: Run, network: str, column: str) -> list[tuple[str, np.ndarray]]:
    """The suspects by each of :func:`suspicions`: a name and positions, the worst first.

    By loss, those that the network contradicts at the end. By aum all that training contradicted
    on the whole (a positive aum, whose sign is turned so that higher is harder).
    """
    scores = run.scores[network]
    out = []
    for name, values in suspicions(run, network, column).items():
        if name == "aum":
            order = hardest_first(values)
            out.append((name, order[values[order] > 0][:PER_NETWORK]))
        else:
            out.append((name, suspects(scores, values)))
    return out


def suspects_figure(
    run: Run, network: str, column: str, thumbnails: Mapping[str, Thumbnail]
) -> Drawn:
    """Training examples whose label the trained network contradicts most: look at these first."""
    title = "Label-noise suspects"
    scores = run.scores[network]
    if scores.predictions is None:
        return Missing("suspects", title, "The score table has no predictions.")
    wrong = int(scores.contradicted.sum())
    by_name = suspect_positions(run, network, column)
    examples = [
        replace(e, row=_suspect_row(name))
        for name, positions in by_name
        for e in describe(
            run, scores, column, [(name, positions)], suspicions(run, network, column)[name]
        )
        if e.key in thumbnails
    ]
    if not any(len(positions) for _, positions in by_name):
        reason = (
            f"{network} classifies all of its {count(len(scores.labels))} examples as labelled."
        )
        return Missing("suspects", title, reason)
    if not examples:
        return Missing("suspects", title, "No image could be read.")
    first = by_name[0][0]
    caption = (
        f"{network} contradicts the label of {count(wrong)} of {count(len(scores.labels))} "
        f"training examples ({percent(wrong / len(scores.labels))}); these have the largest "
        f"{first}. Some are hard, some are labelled wrongly: only looking tells."
    )
    if len(by_name) > 1:
        caption += f" {_aum_sentence(by_name[0][1], by_name[1][1])}"
    return gallery_figure("suspects", title, caption, "value", examples, thumbnails, "ranked_by")


def _aum_sentence(by_loss: np.ndarray, by_aum: np.ndarray) -> str:
    if not len(by_aum):
        return "By aum, the margin over all epochs, training contradicted no label on the whole."
    both = len(np.intersect1d(by_loss, by_aum))
    return (
        "By aum, the margin that training gave to other classes over all its epochs, also what it "
        f"learned by heart in the end is found; {count(both)} are in both rows."
    )


def _suspect_row(name: str) -> str:
    return "by aum, over all epochs" if name == "aum" else f"by {name}, at the end"
