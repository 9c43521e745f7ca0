"""How well each score finds wrong labels: MNIST with some labels changed on purpose.

    python benchmarks/label_noise.py plant --data-dir DIR --out NOISY
    python jobs/mnist.py --data.data-dir NOISY --storage runs/noisy ...
    python benchmarks/label_noise.py find --run runs/noisy --data-dir DIR --noisy NOISY \
        --tables cnn cnn-dynamics --out benchmarks/records/x

A changed label is one of the nine others, evenly. The test set stays as it is.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from recording import recorded
from scipy.stats import mannwhitneyu

from raygrad.runs import score_table
from raygrad.runs.layout import RunLayout

RAW = Path("MNIST", "raw")
LABELS = "train-labels-idx1-ubyte"
HEADER = 8  # bytes before the labels


def read_labels(folder: Path) -> NDArray[np.uint8]:
    """Returns the training labels of a folder of MNIST's files."""
    return np.frombuffer((folder / RAW / LABELS).read_bytes(), np.uint8, offset=HEADER)


def plant(folder: Path, out: Path, share: float, seed: int) -> None:
    """Writes MNIST with wrong labels: its other files are linked."""
    generator = np.random.default_rng(seed)
    labels = read_labels(folder).copy()
    wrong = generator.choice(len(labels), round(share * len(labels)), replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
    (out / RAW).mkdir(parents=True)
    for path in (folder / RAW).iterdir():
        if path.name != LABELS:
            (out / RAW / path.name).symlink_to(path.resolve())
    header = (folder / RAW / LABELS).read_bytes()[:HEADER]
    (out / RAW / LABELS).write_bytes(header + labels.tobytes())


def wrong_of(keys: pd.Series, wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns which examples have a wrong label; a key ends in the number in the original."""
    return wrong[keys.str.extract(r"(\d+)$")[0].astype(int).to_numpy()]


def found(scores: pd.DataFrame, wrong: NDArray[np.bool_], table: str) -> list[tuple]:
    """Returns, by column, the area under the ROC curve and precision at the number wrong.

    The area is the chance that a wrong label's score is above a right one's, ties counted half.
    """
    rows = []
    for name in scores.columns:
        if name in ("key", "shard", "label", "prediction", "correct"):
            continue
        values = scores[name].to_numpy()
        area = mannwhitneyu(values[wrong], values[~wrong]).statistic
        area /= wrong.sum() * (~wrong).sum()
        hardest = np.argsort(-values, kind="stable")[: wrong.sum()]
        rows.append((table, name, len(values), wrong.sum(), area, wrong[hardest].mean()))
    return rows


def in_subsets(layout: RunLayout, wrong: NDArray[np.bool_]) -> list[tuple]:
    """Returns the share of wrong labels in every subset that was drawn."""
    rows = []
    for path in sorted(Path(layout.url, "subsets").rglob("*.parquet")):
        mine = wrong_of(pq.read_table(path).to_pandas().key, wrong)
        rows.append((path.stem, len(mine), mine.mean()))
    return rows


def main() -> None:
    """Parses the flags and does what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["plant", "find"])
    parser.add_argument("--data-dir", type=Path, required=True, help="MNIST as it is")
    parser.add_argument("--noisy", type=Path, help="MNIST as planted")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run")
    parser.add_argument("--tables", nargs="+", default=["cnn", "cnn-dynamics"])
    if "plant" in sys.argv:
        args = parser.parse_args()
        plant(args.data_dir, args.out, args.share, args.seed)
        return
    args, record = recorded(parser, "Which score finds planted wrong labels.")
    wrong = read_labels(args.data_dir) != read_labels(args.noisy)
    layout, rows = RunLayout(args.run), []
    for name in args.tables:
        scores = score_table.read_score_table(layout.scores(name)).to_pandas()
        rows += found(scores, wrong_of(scores.key, wrong), name)
    names = ["table", "score", "examples", "wrong", "auc", "precision"]
    table = pd.DataFrame(rows, columns=names)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "label_noise.csv", index=False, float_format="%.6g")
    subsets = pd.DataFrame(in_subsets(layout, wrong), columns=["subset", "examples", "wrong_share"])
    subsets.to_csv(args.out / "label_noise_subsets.csv", index=False, float_format="%.6g")
    for row in rows:
        record.add(**dict(zip(names, row, strict=True)))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
