"""Images in order of their score, from the hardest to the easiest (the paper's Figure 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.figure
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from raygrad.report.examples import hardest_first
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.style import INK, MUTED, VERMILLION, Layout, as_text, new_figure
from raygrad.report.tables import Run, Scores
from raygrad.report.thumbnails import SMALL_SIDE, Thumbnail

_PER_ROW = 10
_WIDE = 15
"""Letters of a legend's line, below a tile of a tenth of the page."""
# Where in the order each row of the figure starts, as a share of the examples from the hardest.
_ROWS: tuple[tuple[str, float], ...] = (
    ("hardest", 0.0),
    ("top 5%", 0.05),
    ("top 25%", 0.25),
    ("median", 0.5),
    ("easiest", 1.0),
)


@dataclass(frozen=True)
class Example:
    """One example as a picture's legend needs it."""

    key: str
    label: str
    prediction: str | None
    score: float
    row: str

    @property
    def wrong(self) -> bool:
        """Whether the network predicts another class than the label."""
        return self.prediction is not None and self.prediction != self.label


def grid_positions(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The grid's rows: a name and the positions of up to ten examples, hardest first.

    Args:
        values: One score an example, float ``[N]``.
    """
    order = hardest_first(values)
    order = order[np.isfinite(values[order])]
    rows, used = [], 0
    for name, share in _ROWS:
        start = min(int(share * len(order)), len(order) - _PER_ROW)
        start = max(start, used)
        picked = order[start : start + _PER_ROW]
        used = start + len(picked)
        if len(picked):
            rows.append((name, picked))
    return rows


def describe(
    run: Run,
    scores: Scores,
    column: str,
    rows: Sequence[tuple[str, np.ndarray]],
    values: np.ndarray | None = None,
) -> list[Example]:
    """The examples at the given positions, with what a legend says of them.

    Args:
        run: The run.
        scores: The scores of one network.
        column: Which score stands under each.
        rows: Names and positions.
        values: What stands there in its place, ``[N]``.
    """
    values = scores.values(column) if values is None else values
    out = []
    for row, positions in rows:
        keys = scores.table["key"].take(pa.array(positions)).to_pylist()
        for position, key in zip(positions, keys, strict=True):
            guess = -1 if scores.predictions is None else int(scores.predictions[position])
            out.append(
                Example(
                    key=str(key),
                    label=run.class_name(int(scores.labels[position])),
                    prediction=run.class_name(guess) if guess >= 0 else None,
                    score=float(values[position]),
                    row=row,
                )
            )
    return out


def label_words(label: str, prediction: str | None) -> str:
    """What stands under a picture: the label, and what was predicted where that is another."""
    if prediction is None or prediction == label:
        return label
    return f"label {label}, predicted {prediction}"


def tile(example: Example, thumbnail: Thumbnail) -> str:
    """One example as a button of the page, which opens its details."""
    text = escape(label_words(example.label, example.prediction))
    words = f'<span class="wrong">{text}</span>' if example.wrong else f"<span>{text}</span>"
    alt = f"{example.key}: class {example.label}"
    if example.prediction is not None:
        alt += f", predicted {example.prediction}"
    return (
        f'<li><button type="button" class="tile" data-key="{escape(example.key)}" '
        f'title="{escape(example.key)}">'
        f'<img src="{thumbnail.data_uri}" alt="{escape(alt)}">'
        f'{words}<span class="score">{example.score:.3g}</span></button></li>'
    )


def strip(examples: Sequence[Example], thumbnails: Mapping[str, Thumbnail], css: str = "") -> str:
    """Examples side by side, as many a line as there is room for.

    Args:
        examples: In order; those without a picture are left out.
        thumbnails: Pictures by key.
        css: A class of the list beside its own.
    """
    shown = [(e, thumbnails[e.key]) for e in examples if e.key in thumbnails]
    small = all(max(t.pixels.shape[:2]) <= SMALL_SIDE for _, t in shown)
    names = " ".join(["strip", *(["pixels"] if small else []), *([css] if css else [])])
    return f'<ul class="{names}">{"".join(tile(e, t) for e, t in shown)}</ul>'


def legend(example: Example) -> str:
    """The label, and what was predicted instead, in one line or two that a tile has room for."""
    if not example.wrong:
        return example.label[:_WIDE]
    words = f"{example.label}, not {example.prediction}"
    if len(words) <= _WIDE:
        return words
    return f"{example.label[: _WIDE - 1]},\n{f'not {example.prediction}'[:_WIDE]}"


def draw_grid(
    examples: Sequence[Example], thumbnails: Mapping[str, Thumbnail], layout: Layout
) -> matplotlib.figure.Figure:
    """Rows of images with label, prediction and score under each, a line a row of the grid."""
    per_line = _PER_ROW if layout.columns > 1 else _PER_ROW // 2
    lines: list[tuple[str, list[Example]]] = []
    for row in dict.fromkeys(e.row for e in examples):
        mine = [e for e in examples if e.row == row]
        for start in range(0, len(mine), per_line):
            lines.append((row if start == 0 else "", mine[start : start + per_line]))
    # One pair of axes in units of a tile's side: a hundred pairs would take seconds to lay out.
    tops, height = [], 0.0
    for title, part in lines:
        height += 0.42 if title else 0.08
        tops.append(height)
        height += 1.42 + (0.16 if any("\n" in legend(e) for e in part) else 0.0)
    side_in = layout.width_in / (per_line * 1.08)
    figure = new_figure(layout, height * side_in, arranged=False)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_axis_off()
    for (title, part), top in zip(lines, tops, strict=True):
        ax.text(
            0.04,
            top - 0.08,
            as_text(title),
            fontsize=8.5,
            fontweight="bold",
            color=INK,
            va="bottom",
        )
        for j, example in enumerate(part):
            _draw_tile(ax, example, thumbnails[example.key], 0.04 + 1.08 * j, top)
    ax.set_xlim(0, per_line * 1.08)
    ax.set_ylim(height, 0)
    return figure


def _draw_tile(ax: Axes, example: Example, thumbnail: Thumbnail, x: float, y: float) -> None:
    ax.imshow(
        thumbnail.pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest",
        extent=(x, x + 1, y + 1, y),
        aspect="auto",
    )
    color = VERMILLION if example.wrong else MUTED
    text = f"{as_text(legend(example))}\n{example.score:.2g}"
    ax.text(x + 0.5, y + 1.03, text, ha="center", va="top", fontsize=6.5, color=color)


def images_figure(
    run: Run, network: str, column: str, thumbnails: Mapping[str, Thumbnail]
) -> Drawn:
    """Images by falling score: the hardest, three places between, and the easiest (Fig. 4).

    Args:
        run: The run.
        network: Whose scores.
        column: The score that orders them.
        thumbnails: Pictures by key; examples without one are left out.
    """
    title = "From the hardest to the easiest"
    scores = run.scores[network]
    rows = grid_positions(scores.values(column))
    examples = [e for e in describe(run, scores, column, rows) if e.key in thumbnails]
    if not examples:
        return Missing(
            "images", title, "No image could be read: the index or the shards are not there."
        )
    hardest = [e for e in examples if e.row == examples[0].row]
    known = [e for e in hardest if e.prediction is not None]
    wrong = sum(e.wrong for e in known)
    caption = (
        f"Training images by falling {column} of {network}; under each its class, what the network "
        f"took it for where that is another, and the score. Scores fall from "
        f"{examples[0].score:.3g} to {examples[-1].score:.3g}."
    )
    if known:
        caption += f" Of the {len(known)} hardest shown, {wrong} are classified wrongly."
    body = "".join(
        f"<h4>{escape(name)}</h4>{strip([e for e in examples if e.row == name], thumbnails)}"
        for name in dict.fromkeys(e.row for e in examples)
    )
    table = pa.Table.from_pylist(
        [
            {
                "row": e.row,
                "key": e.key,
                "label": e.label,
                "prediction": e.prediction,
                column: e.score,
            }
            for e in examples
        ]
    )
    return Figure(
        name="images",
        title=title,
        caption=caption,
        alt="Rows of training images, from the largest score to the smallest.",
        table=table,
        draw=lambda layout: draw_grid(examples, thumbnails, layout),
        markup=body,
    )
