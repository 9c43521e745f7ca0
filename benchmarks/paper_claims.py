"""What the paper claims of a data set, from the tables of a run folder, as CSV files.

Bounds of batches (Figure 1), the probe over epochs (Figures 2 and 5), accuracies with intervals
(Figures 3, 8, 9), label entropy of the top k (Figures 7, 12), rank correlations of all scores,
overlap of networks (Figure 6), classes of the top 5% (Figure 11), both attributes of the data set;
what it cost: retrainings, images and seconds by share, and when each stage was started and ended.

    python -m benchmarks.paper_claims --run runs/mnist --networks cnn --out benchmarks/records/x
    python -m benchmarks.paper_claims --run runs/cifar10 --networks cnn5 vgg16_32 linear --out DIR
    python -m benchmarks.paper_claims --run runs/mnist --tables accuracy trials beside \
        --beside runs/mnist/scores/cnn-dynamics runs/grand/scores/cnn --out DIR

All of it stands in DIR/paper-claims.json too, with settings, machine and source.
The first network is the one that subsets are drawn by; tables of the others carry their names.
"""

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import rankdata, spearmanr

from benchmarks.recording import Record
from raygrad.errors import DataError
from raygrad.report.intervals import mean_interval
from raygrad.report.wording import bracket_words
from raygrad.runs import score_table
from raygrad.runs.journal import read_journal, wall_s
from raygrad.runs.layout import RunLayout
from raygrad.selection.analysis import overlap
from raygrad.selection.attributes import attributes, means_by_group

NORM = "grad_l2_last_layer_weights"
SHARES = (0.0032407407, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0)
NO_SCORES = ["key", "shard", "label", "prediction", "correct"]
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


def results(layout: RunLayout) -> pd.DataFrame:
    """Returns a sweep's rows; older sweeps knew of no other scored run."""
    table = pq.read_table(layout.results).to_pandas()
    return table if "score_run" in table else table.assign(score_run=None)


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Returns mean test accuracy with its 95% interval by method, fraction and protocol.

    Intervals are over the means of scoring networks where there are several (`n` of them), as the
    report's are: replicates of one network share its scores.
    """
    groups = ["network", "protocol", "score_network", "score_column", "score_run"]
    groups += ["keep_fraction", "budget", "method"]
    rows = []
    for names, of in table.groupby(groups, dropna=False):
        networks = of.score_seed.fillna(-1).to_dict() if "score_seed" in of else {}
        samples = means_by_group(of.test_accuracy.to_dict(), networks)
        found = mean_interval(samples)
        rows.append((*names, len(of), len(samples), found.mean, found.low, found.high))
    return pd.DataFrame(rows, columns=[*groups, "trials", "n", "mean", "low", "high"])


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
    for share in SHARES:
        k = round(share * len(labels))
        drawn = [
            entropy(labels[generator.choice(len(labels), k, replace=False)])
            for _ in range(NUM_DRAWS)
        ]
        rows.append((k, entropy(labels[order[:k]]), np.mean(drawn), np.min(drawn), np.max(drawn)))
    return pd.DataFrame(rows, columns=["k", "top_k", "random_mean", "random_min", "random_max"])


def correlations(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns Spearman's rank correlations of all score columns, of one too."""
    names = list(scores.columns.difference(NO_SCORES, sort=False))
    if len(names) < 2:
        return pd.DataFrame(np.eye(len(names)), names, names)
    found = np.asarray(spearmanr(scores[names].to_numpy()).statistic)
    if found.ndim == 0:  # of two columns it is a number
        found = np.array([[1.0, found], [found, 1.0]])
    return pd.DataFrame(found, names, names)


def overlaps(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns what share of the k largest norms each two networks have in common; random is k/N."""
    rows = []
    for one, other in itertools.combinations(tables, 2):
        both = tables[one].merge(tables[other], on="key", suffixes=("", "_other"))
        common = overlap(both[NORM].to_numpy(), both[f"{NORM}_other"].to_numpy())
        for share in SHARES:
            k = round(share * len(both))
            rows.append((one, other, k, common[k - 1], k / len(both)))
    return pd.DataFrame(rows, columns=["one", "other", "k", "overlap", "random"])


def classes(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns each class's share of the 100 largest norms, of the top 5% and of all examples."""
    rows = []
    for network, scores in tables.items():
        order = np.argsort(-scores[NORM].to_numpy(), kind="stable")
        labels = scores.label.to_numpy()
        for k in (100, round(0.05 * len(labels)), len(labels)):
            shares = np.bincount(labels[order[:k]], minlength=labels.max() + 1) / k
            rows += [(network, k, label, share) for label, share in enumerate(shares)]
    return pd.DataFrame(rows, columns=["network", "k", "label", "share"])


def beside(scores: pd.DataFrame, urls: list[str]) -> pd.DataFrame:
    """Returns how other scores of the same examples agree with the norms: in rank, in the top k."""
    rows = []
    for url in urls:
        other = score_table.read_score_table(url).to_pandas()
        norms = scores.set_index("key")[NORM].loc[other.key].to_numpy()
        for name in [c for c in other.columns if c.split("@")[0] not in NO_SCORES]:
            ranks = rankdata(other[name])  # forgetting is infinite where nothing was ever learned
            common = overlap(norms, ranks)
            shares = [common[round(share * len(norms)) - 1] for share in (0.01, 0.05, 0.1)]
            rows.append((url, name, spearmanr(norms, ranks).statistic, *shares))
    names = ["table", "score", "rank_correlation", "top_1%", "top_5%", "top_10%"]
    return pd.DataFrame(rows, columns=names)


def both_attributes(table: pd.DataFrame) -> pd.DataFrame:
    """Returns simplicity with its interval and redundancies as brackets, by network and protocol.

    A bracket has no mean; its `high` is 1 where every measured share passed.
    """
    own = table[(table.score_column == NORM) & table.score_run.isna()]
    rows = []
    for (network, protocol), of in attributes(own.to_dict("list")).items():
        x = of.simplicity
        rows.append((network, protocol, "simplicity", x.num_seeds, x.mean, x.low, x.high, ""))
        brackets = {f"redundancy by {name}": found for name, found in of.redundancy.items()}
        rows += [
            (network, protocol, name, b.num_seeds, math.nan, b.low, b.high, bracket_words(b))
            for name, b in brackets.items()
        ]
    names = ["network", "protocol", "attribute", "n", "mean", "low", "high", "in_words"]
    return pd.DataFrame(rows, columns=names)


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Returns retrainings, images of all their epochs and their seconds, by share kept."""
    names = ["network", "protocol", "score_network", "score_column", "score_run", "keep_fraction"]
    return (
        table.groupby(names, dropna=False)
        .agg(
            retrainings=("trial", "size"),
            images=("examples_seen", "sum"),
            seconds=("train_time_s", "sum"),
            mean_s=("train_time_s", "mean"),
            least_s=("train_time_s", "min"),
        )
        .reset_index()
    )


def journal(layout: RunLayout) -> pd.DataFrame:
    """Returns every start of a stage, and as a last row the wall time of them all."""
    entries = read_journal(layout.journal)
    rows = [(e.stage, e.process, e.started_s, e.seconds, e.outcome) for e in entries]
    starts = f"{len({e.process for e in entries})} starts"
    rows.append(("all", starts, entries[0].started_s if entries else 0, wall_s(entries), ""))
    return pd.DataFrame(rows, columns=["stage", "start", "started_s", "seconds", "outcome"])


def of_network(layout: RunLayout, network: str, scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns the tables of one network: entropy, correlations; bound and probe, if measured."""
    folder = Path(layout.train(network))
    found = {
        "entropy": entropies(scores),
        "correlations": correlations(scores).rename_axis("score").reset_index(),
    }
    if (folder / "bound.parquet").exists():
        found["bound"] = bounds(folder)
    if (folder / "probe.parquet").exists():
        found["probe"] = probe(folder).reset_index()
    return found


def main() -> None:
    """Parses the flags and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run folder on disk")
    parser.add_argument("--networks", nargs="+", default=["cnn"])
    parser.add_argument("--beside", nargs="+", default=[], help="score tables of the same examples")
    parser.add_argument("--tables", nargs="+", help="write these alone")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    layout = RunLayout(args.run)
    tables = {
        name: score_table.read_score_table(layout.scores(name)).to_pandas()
        for name in args.networks
    }
    args.out.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in vars(args).items() if name != "run"}
    record = Record("What the paper claims, from the tables of a run.", settings=kept)
    found = {"classes": classes(tables)}
    for at, (name, scores) in enumerate(tables.items()):
        tail = f"-{name}" if at else ""
        found |= {f"{k}{tail}": v for k, v in of_network(layout, name, scores).items()}
    if args.beside:
        found["beside"] = beside(tables[args.networks[0]], args.beside)
    if len(tables) > 1:
        found["overlap"] = overlaps(tables)
    if Path(layout.results).exists():
        found["trials"] = results(layout)
        found["accuracy"] = accuracies(found["trials"])
        found["cost"] = costs(found["trials"])
        found["journal"] = journal(layout)
        try:
            found["attributes"] = both_attributes(found["trials"])
        except DataError as error:
            print(f"no attributes: {error}")
        print(found["accuracy"].to_string(index=False))
    for name, table in found.items():
        if args.tables and name not in args.tables:
            continue
        table.to_csv(args.out / f"{name}.csv", index=False, float_format="%.6g")
        record.add_table(name, table.to_dict("records"))
    record.write(args.out / "paper-claims.json")


if __name__ == "__main__":
    main()
