"""Images by network side by side (the paper's Figures 10 and 11)."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import pyarrow as pa

from raygrad.report.examples import hardest_first
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.images import Example, describe, draw_grid, strip
from raygrad.report.tables import Run, Scores
from raygrad.report.thumbnails import Thumbnail
from raygrad.report.wording import count, listed, percent, top_words

PER_NETWORK = 20
_SEED = 0
_TOP = 0.05

Pick = Callable[[Scores, str], np.ndarray]


def hardest(scores: Scores, column: str) -> np.ndarray:
    """Positions of the hardest examples."""
    return hardest_first(scores.values(column))[:PER_NETWORK]


def top_sample(scores: Scores, column: str) -> np.ndarray:
    """Positions of a seeded random sample of the top 5%, of few examples the top 20."""
    order = hardest_first(scores.values(column))
    chosen = np.random.default_rng(_SEED).permutation(_top_size(len(order)))[:PER_NETWORK]
    return order[np.sort(chosen)]


def _top_size(number: int) -> int:
    """How many of so many examples are sampled from: at least as many as are shown."""
    return max(min(PER_NETWORK, number), int(_TOP * number))


def most_raised_class(scores: Scores, column: str) -> tuple[int, float, float]:
    """The class whose share of the top 5% exceeds its share of all examples most.

    Of few examples it is the top 20, which are sampled from.

    Returns:
        The class, its share of the top and its share of all, both in [0, 1].
    """
    order = hardest_first(scores.values(column))
    top = scores.labels[order[: _top_size(len(order))]]
    size = int(scores.labels.max()) + 1
    shares = np.bincount(top, minlength=size) / len(top)
    usual = np.bincount(scores.labels, minlength=size) / len(order)
    label = int(np.argmax(shares - usual))
    return label, float(shares[label]), float(usual[label])


def _commonest(examples: Sequence[Example]) -> str:
    names, counts = np.unique([e.label for e in examples], return_counts=True)
    top = np.argsort(-counts, kind="stable")[:2]
    return listed([f"{names[i]} ({counts[i]})" for i in top])


def _gallery(
    run: Run,
    column: str,
    thumbnails: Mapping[str, Thumbnail],
    networks: Sequence[str],
    pick: Pick,
) -> list[Example]:
    examples: list[Example] = []
    for network in networks:
        scores = run.scores[network]
        if column in scores.columns:
            positions = pick(scores, column)
            examples += describe(run, scores, column, [(network, positions)])
    return [e for e in examples if e.key in thumbnails]


def gallery_figure(
    name: str,
    title: str,
    caption: str,
    column: str,
    examples: Sequence[Example],
    thumbnails: Mapping[str, Thumbnail],
    row_name: str = "network",
) -> Figure:
    """Images as a figure: on the page as tiles that open, in its files as a grid.

    Args:
        name: The figure's name.
        title: What it shows.
        caption: What to see in it.
        column: What the examples' scores are, as the CSV's column.
        examples: In order; a row each is a heading where there are several.
        thumbnails: Pictures by key.
        row_name: What a row is, as the CSV's column.
    """
    rows = list(dict.fromkeys(e.row for e in examples))
    body = "".join(
        (f"<h4>{escape(n)}</h4>" if len(rows) > 1 else "")
        + strip([e for e in examples if e.row == n], thumbnails)
        for n in rows
    )
    table = pa.Table.from_pylist(
        [
            {
                row_name: e.row,
                "key": e.key,
                "label": e.label,
                "prediction": e.prediction,
                column: e.score,
            }
            for e in examples
        ]
    )
    return Figure(
        name=name,
        title=title,
        caption=caption,
        alt=f"{title}: {count(len(examples))} training images of {listed(rows)}.",
        table=table,
        draw=lambda layout: draw_grid(examples, thumbnails, layout),
        markup=body,
    )


def hardest_figure(run: Run, column: str, thumbnails: Mapping[str, Thumbnail]) -> Drawn:
    """The hardest examples of each network, one row of the figure a network (Fig. 10)."""
    title = "The hardest by network"
    if len(run.scores) < 2:
        return Missing("hardest", title, "It takes the scores of at least two networks.")
    examples = _gallery(run, column, thumbnails, list(run.scores), hardest)
    if not examples:
        return Missing("hardest", title, "No image could be read.")
    parts = [
        f"{n}: {_commonest([e for e in examples if e.row == n])}"
        for n in dict.fromkeys(e.row for e in examples)
    ]
    caption = (
        f"The examples with the largest {column} of each network. What they share, such as a class "
        f"or a background, is what choosing by the norm alone would over-represent. Commonest "
        f"classes among those shown: {'; '.join(parts)}."
    )
    return gallery_figure("hardest", title, caption, column, examples, thumbnails)


def top_sample_figure(run: Run, column: str, thumbnails: Mapping[str, Thumbnail]) -> Drawn:
    """Random examples of each network's top 5% (Fig. 11)."""
    number = min((len(scores.labels) for scores in run.scores.values()), default=0)
    top = top_words(_TOP, _top_size(number), number) if number else percent(_TOP)
    title = f"Random picks from the top {top}"
    examples = _gallery(run, column, thumbnails, list(run.scores), top_sample)
    if not examples:
        return Missing("top-sample", title, "No image could be read.")
    parts = []
    for n in dict.fromkeys(e.row for e in examples):
        label, share, usual = most_raised_class(run.scores[n], column)
        parts.append(
            f"of {n}'s, {percent(share)} are of class {run.class_name(label)}, "
            f"which is {percent(usual)} of all"
        )
    caption = (
        f"A random sample (seed {_SEED}) of the {top} of the examples with the largest "
        f"{column}, in falling order. In that whole {top}, the class most "
        f"over-represented: {'; '.join(parts)}."
    )
    return gallery_figure("top-sample", title, caption, column, examples, thumbnails)
