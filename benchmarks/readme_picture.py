"""README's picture: real images from the hardest to the easiest, beside what choosing does.

    python benchmarks/readme_picture.py --run runs/mnist --network cnn \
        --trials benchmarks/records/2026-11-29-mnist-networks/trials.csv --num-test 10000 \
        --images "Scored by a CNN of 99.6%" \
        --curves "The CNN, 50 epochs a subset; 54,017 images are all; over 3 scoring networks" \
        --out benchmarks/records/2026-11-29-readme-picture.png

The images are read from a run folder with scores and shards; the curves are drawn from a record's
trials, as the report draws them: of one network, on random subsets and those that it chose.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from raygrad.report.examples import hardest_first
from raygrad.report.figures.accuracy import draw_panel
from raygrad.report.figures.curves import fraction_axis
from raygrad.report.figures.images import label_words
from raygrad.report.results import BASELINE, FULL, panels_of, trials_of
from raygrad.report.style import INK, MUTED, VERMILLION, drawing, series_styles
from raygrad.report.tables import read_run
from raygrad.report.thumbnails import read_thumbnails

COLUMNS = 5
ROWS = (("hardest", 0.0), ("top 5%", 0.05), ("median", 0.5), ("easiest", 1.0))
WIDTH_IN, HEIGHT_IN = 9.0, 4.3


def place_images(figure: Figure, run_url: str, network: str, words: Mapping[str, str]) -> None:
    """Draws rows of images, hardest first, on the left half of the picture.

    Args:
        figure: The picture.
        run_url: The run folder.
        network: Whose scores order the images.
        words: What is written in place of a class's name, where it has one.
    """
    run = read_run(run_url)
    assert run.score_column is not None
    assert run.index is not None
    scores = run.scores[network]
    order = hardest_first(scores.values(run.score_column))
    starts = [min(int(share * len(order)), len(order) - COLUMNS) for _, share in ROWS]
    chosen = [order[start : start + COLUMNS] for start in starts]
    keys = scores.table["key"].take(np.concatenate(chosen)).to_pylist()
    pictures, _ = read_thumbnails(run.index, keys, int(run.dataset.get("channels") or 3))
    side, left, top = 0.066 * WIDTH_IN / HEIGHT_IN, 0.075, 0.90
    for i, ((name, _), positions) in enumerate(zip(ROWS, chosen, strict=True)):
        y = top - (i + 1) * 0.212 + (0.212 - side)
        figure.text(0.068, y + side / 2, name, ha="right", va="center", fontsize=9, weight="bold")
        for j, position in enumerate(positions):
            ax = figure.add_axes((left + j * 0.076, y, 0.066, side))
            ax.imshow(pictures[keys[i * COLUMNS + j]].pixels, cmap="gray", vmin=0, vmax=255)
            ax.set_axis_off()
            guess = -1 if scores.predictions is None else int(scores.predictions[position])
            label = int(scores.labels[position])
            names = [words.get(name, name) for name in map(run.class_name, (label, max(guess, 0)))]
            text = label_words(names[0], names[1] if guess >= 0 else None)
            color = VERMILLION if guess not in (-1, label) else MUTED
            text = text.replace(", ", ",\n")
            longest = max(map(len, text.split("\n")))  # more than 13 would run into the next
            ax.text(0.5, -0.05, text, transform=ax.transAxes, va="top", ha="center",
                    fontsize=6.5 * min(1, 13 / longest), color=color)  # fmt: skip


def place_curves(figure: Figure, trials: Path, network: str, num_test: int) -> None:
    """Draws a network's accuracy against the data kept, on the right half."""
    rows = [
        row
        for row in pyarrow.csv.read_csv(trials).to_pylist()
        if row["network"] == network
        and (row["method"] == BASELINE or row["score_network"] == network)
    ]
    (panel,) = panels_of(trials_of(pa.Table.from_pylist(rows)), {network: num_test})
    ax = figure.add_axes((0.535, 0.15, 0.45, 0.64))
    styles = series_styles(panel.curves)
    draw_panel(ax, panel, styles)
    fraction_axis(ax, [FULL, *(p.keep_fraction for c in panel.curves.values() for p in c)])
    for name, style in styles.items():
        ax.plot([], [], color=style.color, marker=style.marker, label=name)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=8)


def main() -> None:
    """Draws the picture and says how large it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", required=True, help="a run folder with scores and shards")
    parser.add_argument("--trials", type=Path, required=True, help="a record's trials, CSV")
    parser.add_argument("--network", required=True, help="that scored and was retrained")
    parser.add_argument("--num-test", type=int, required=True)
    parser.add_argument("--words", nargs="*", default=[], help="for names of classes, NAME=WORDS")
    parser.add_argument("--dpi", type=int, default=150)
    parser.add_argument("--images", required=True, help="what the images are, in a line")
    parser.add_argument("--curves", required=True, help="what the curves are, in a line")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with drawing():
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
        FigureCanvasAgg(figure)
        figure.text(0.012, 0.955, "Which examples are hard?", fontsize=11, weight="bold", color=INK)
        figure.text(0.5, 0.955, "What does it do to keep only these?", fontsize=11, weight="bold")
        words = dict(pair.split("=", 1) for pair in args.words)
        place_images(figure, args.run, args.network, words)
        place_curves(figure, args.trials, args.network, args.num_test)
        figure.text(0.012, 0.015, args.images, fontsize=7, color=MUTED)
        figure.text(0.5, 0.015, args.curves, fontsize=7, color=MUTED)
        figure.savefig(args.out, dpi=args.dpi, metadata={"Software": None})
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
