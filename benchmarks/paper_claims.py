"""What the paper claims of a data set, from the tables of a run folder, as CSV files.

Bounds of batches (Figure 1), the probe over epochs (Figures 2 and 5), accuracies with intervals
(Figures 3, 8, 9), label entropy of the top k (Figures 7, 12), rank correlations of all scores.

    python benchmarks/paper_claims.py --run runs/mnist --network cnn --out benchmarks/records/x
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from raygrad.data import score_table
from raygrad.data.layout import RunLayout
from raygrad.report.intervals import mean_interval

NORM = "grad_l2_last_layer_weights"
NUM_DRAWS = 50
"""Random sets that the entropy of a top k is set against."""


def bounds(folder: Path) -> pd.DataFrame:
    """Returns, by epoch, the correlation and the mean ratio of both sides of the bound."""
    table = pq.read_table(folder / "bound.parquet").to_pandas()
    rows = []
    for epoch, of in table.groupby("epoch"):
        correlation = np.corrcoef(of.norm_of_sum, of.sum_of_norms)[0, 1]
        rows.append((epoch, len(of), correlation, (of.norm_of_sum / of.sum_of_norms).mean()))
    return pd.DataFrame(rows, columns=["epoch", "batches", "correlation", "mean_ratio"])


def probe(folder: Path) -> pd.DataFrame:
    """Returns quantiles of the probe's gradient norms by epoch."""
    table = pq.read_table(folder / "probe.parquet").to_pandas()
    return table.groupby("epoch")[NORM].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()


def accuracies(layout: RunLayout) -> pd.DataFrame:
    """Returns mean test accuracy with its 95% interval by method, fraction and protocol."""
    table = pq.read_table(layout.results).to_pandas()
    groups = ["network", "protocol", "keep_fraction", "budget", "method"]
    rows = []
    for names, of in table.groupby(groups):
        found = mean_interval(of.test_accuracy.to_numpy())
        rows.append((*names, len(of), found.mean, found.low, found.high))
    return pd.DataFrame(rows, columns=[*groups, "n", "mean", "low", "high"])


def entropy(labels: np.ndarray) -> float:
    """Returns the entropy of labels in bits."""
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def entropies(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns the label entropy of the k largest norms, and of random sets of that size."""
    labels = scores.label.to_numpy()
    order = np.argsort(-scores[NORM].to_numpy(), kind="stable")
    generator = np.random.default_rng(0)
    rows = []
    for share in (0.0032407407, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0):
        k = round(share * len(labels))
        drawn = [
            entropy(labels[generator.choice(len(labels), k, replace=False)])
            for _ in range(NUM_DRAWS)
        ]
        rows.append((k, entropy(labels[order[:k]]), np.mean(drawn), np.min(drawn), np.max(drawn)))
    return pd.DataFrame(rows, columns=["k", "top_k", "random_mean", "random_min", "random_max"])


def correlations(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns Spearman's rank correlations of all score columns."""
    names = [n for n in scores.columns if n not in ("key", "shard", "label", "prediction")]
    names = [n for n in names if n != "correct"]
    return pd.DataFrame(spearmanr(scores[names].to_numpy()).statistic, names, names)


def main() -> None:
    """Parses the flags and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run folder on disk")
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    layout = RunLayout(args.run)
    folder = Path(layout.train(args.network))
    scores = score_table.read_score_table(layout.scores(args.network)).to_pandas()
    args.out.mkdir(parents=True, exist_ok=True)
    found = {
        "bound": bounds(folder),
        "probe": probe(folder).reset_index(),
        "accuracy": accuracies(layout),
        "entropy": entropies(scores),
        "correlations": correlations(scores).rename_axis("score").reset_index(),
        "trials": pq.read_table(layout.results).to_pandas(),
    }
    for name, table in found.items():
        table.to_csv(args.out / f"{name}.csv", index=False, float_format="%.6g")
    print(found["accuracy"].to_string(index=False))


if __name__ == "__main__":
    main()
