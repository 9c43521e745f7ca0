"""Which ranking of labels finds most planted errors, over many draws of them, beside Datalab.

    python benchmarks/label_rankings.py --runs cifar10=runs/cifar10 photos=runs/photos --digits \
        --seeds 3 --kept /tmp/kept --record benchmarks/records/DATE-label-rankings.json

Runs are of `benchmarks/audit.py --backbone`: their looks are read, and linear heads on the same
features judge each draw, as there. `--digits` are scikit-learn's, by their pixels. Probabilities
are kept, so that another ranking costs no fit. cleanlab is wanted for Datalab.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from audit import _datalab
from numpy.typing import NDArray
from planting import original, wrong_labels
from recording import Record
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score

from raygrad.audit import confident
from raygrad.audit.folds import fold_numbers, head_probabilities
from raygrad.data.index import read_index
from raygrad.pipeline.audit_judging import fold_of_groups
from raygrad.pipeline.audit_looking import look

FOLDS = 4


class Judged:
    """A data set by its features, and what heads say of any labels of it."""

    def __init__(self, name: str, kept: Path) -> None:
        self.name, self._kept = name, kept

    def of_run(self, run: Path) -> "Judged":
        """Reads the look of an audit; copies of one picture share its fold and its label."""
        folder = next((run / "audit" / "steps").glob("look-*"))
        seen = look(read_index(str(run / "data")), 3, None, str(folder))
        keys, self.hashes = seen.rows["key"].to_pylist(), seen.rows["key_hash"].to_numpy()
        self.features, self.truth = seen.features, seen.rows["label"].to_numpy()
        table = pq.read_table(run / "audit" / "repeats.parquet", columns=["key", "group"])
        groups = dict(zip(table["key"].to_pylist(), table["group"].to_pylist(), strict=True))
        self.groups = np.array([groups.get(key, -1) for key in keys])
        numbers = np.array([original(key) for key in keys])
        _, self.first, self.place = np.unique(numbers, return_index=True, return_inverse=True)
        return self

    def of_digits(self) -> "Judged":
        """Reads scikit-learn's digits."""
        data = load_digits()
        self.features, self.truth = data.data.astype(np.float32), data.target.astype(np.int64)
        self.hashes = np.random.default_rng(0).integers(0, 2**63, len(self.truth)).astype(np.uint64)
        self.groups = None
        self.first = self.place = np.arange(len(self.truth))
        return self

    def probabilities(self, labels: NDArray[np.int64], what: str) -> NDArray[np.float32]:
        """Returns what heads on the other folds say, fitted once."""
        kept = self._kept / f"{self.name}-{what}.npz"
        if kept.exists():
            found = np.load(kept)
            assert (found["labels"] == labels).all(), f"{kept} is of other labels"
            return found["p"]
        if self.groups is None:
            folds = fold_numbers(labels, self.hashes, FOLDS)
        else:
            folds = fold_of_groups(labels, self.hashes, self.groups, FOLDS, 0)
        p = head_probabilities(self.features, labels, folds, int(self.truth.max()) + 1)
        np.savez(kept, p=p, labels=labels)
        return p

    def draws(self, seeds: int) -> Iterator[tuple[str, float, int, NDArray, NDArray]]:
        """Yields noise, share, seed, labels and probabilities."""
        clean = self.probabilities(self.truth, "clean")
        counts = np.zeros((clean.shape[1],) * 2)
        np.add.at(counts, (self.truth, clean.argmax(1)), 1)
        np.fill_diagonal(counts, -1)
        for seed in range(seeds):
            for noise, partners in (("symmetric", None), ("confused", counts.argmax(1))):
                for share in (0.03, 0.1):
                    drawn = seed + (seed >= 1) if self.groups is not None else seed
                    labels = wrong_labels(self.truth[self.first], share, partners, drawn)
                    labels = labels[self.place]
                    p = self.probabilities(labels, f"{noise}-{share}-{seed}")
                    yield noise, share, seed, labels, p


def rankings(p: NDArray, labels: NDArray) -> Iterator[tuple[str, NDArray]]:
    """Yields names and values, higher = likelier wrong."""
    for weight in (0.25, 0.5, 0.75):
        yield f"tempered odds, {weight}", confident.tempered_odds(p, labels, weight)
    yield "noise odds", confident.noise_odds(p, labels)
    yield "log odds", confident.log_odds(p, labels)
    yield "margin", confident.normalized_margin(p, labels)
    yield "loss", confident.tempered_odds(p, labels, 0.0)
    for name, values, _ in _datalab(p, labels):
        yield name, values


def main() -> None:
    """Draws, judges and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", default=[], help="NAME=RUN")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    args = parser.parse_args()
    args.kept.mkdir(parents=True, exist_ok=True)
    named = [one.split("=", 1) for one in args.runs]
    sets = [Judged(name, args.kept).of_run(Path(run)) for name, run in named]
    sets += [Judged("digits", args.kept).of_digits()] if args.digits else []
    settings = vars(args) | {"runs": [name for name, _ in named]}
    record = Record("Average precision of rankings of labels over draws of wrong ones", settings)
    record.write(args.record)
    for data in sets:
        for noise, share, seed, labels, p in data.draws(args.seeds):
            wrong = labels != data.truth
            for name, values in rankings(p, labels):
                order = np.argsort(-values, kind="stable")
                record.add(
                    data=data.name, noise=noise, share=share, seed=seed, ranking=name,
                    average_precision=float(average_precision_score(wrong, values)),
                    roc_auc=float(roc_auc_score(wrong, values)),
                    precision_at_planted=float(wrong[order[: wrong.sum()]].mean()),
                )  # fmt: skip
            print(data.name, noise, share, seed, flush=True)


if __name__ == "__main__":
    main()
