"""The record of planted wrong labels, from the units that `noise_study` keeps.

    python -m benchmarks.noise_record --kept records/kept/noise --out records/DATE-noise

Means over seeds with 95% intervals (Student's t); each seed has errors and networks of its own.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.recording import Record
from raygrad.report.intervals import mean_interval

LEAST = 3
"""Seeds that a mean needs."""


def means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Returns mean and interval of columns over seeds, a row a group.

    Raises:
        ValueError: A group has fewer than `LEAST` seeds, or a seed twice.
    """
    rows = []
    for names, of in table.groupby(list(by), sort=False, dropna=False):
        if of.seed.nunique() < LEAST or of.seed.duplicated().any():
            raise ValueError(f"a mean needs {LEAST} seeds, each once, got {list(of.seed)}: {names}")
        row: dict[str, Any] = dict(zip(by, names, strict=True))
        for column in columns:
            found = mean_interval(of[column].tolist())
            row |= {column: found.mean, f"{column}_low": found.low, f"{column}_high": found.high}
        rows.append(row | {"n": len(of)})
    return pd.DataFrame(rows)


def tables(units: Sequence[dict[str, Any]]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields every table of the record with its name."""
    whole = {
        name: pd.concat(
            [pd.DataFrame(one[name]).assign(kind=one["kind"], seed=one["seed"]) for one in units]
        )
        for name in ("found", "kept", "trials")
    }
    yield (
        "found",
        means(whole["found"], ["kind", "score"], ["auc", "average_precision", "precision"]),
    )
    yield (
        "kept",
        means(
            whole["kept"],
            ["kind", "method", "column", "keep_fraction"],
            ["wrong_share", "wrong_kept"],
        ),
    )
    trials = whole["trials"]
    yield "accuracy", means(trials, ["kind", "method"], ["test_accuracy", "budget"])
    yield "less_random", means(less_random(trials), ["kind", "method"], ["points"])
    yield "trials", trials


def less_random(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns by how many points each way is above the random rest of the same errors, by seed."""
    random = trials[trials.method == "random_rest"].set_index(["kind", "seed"]).test_accuracy
    others = trials[trials.method != "random_rest"].set_index(["kind", "seed"])
    points = 100 * (others.test_accuracy - random.reindex(others.index))
    return others.assign(points=points).reset_index()


def main() -> None:
    """Reads the units and writes tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, required=True, help="the folder of units")
    parser.add_argument("--out", type=Path, required=True, help="where the tables go")
    args = parser.parse_args()
    units = [json.loads(path.read_text()) for path in sorted(args.kept.glob("*.json"))]
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"units": [[one["kind"], one["seed"], one["examples"]] for one in units]}
    record = Record(
        "Wrong labels planted in CIFAR-10; the machine of each unit is its own.", settings
    )
    for name, table in tables(units):
        table.to_csv(args.out / f"{name}.csv", index=False, float_format="%.6g")
        record.add_table(name, table.to_dict("records"))
    record.add_table(
        "machines", ({"seed": u["seed"], "kind": u["kind"], **u["machine"]} for u in units)
    )
    record.write(args.out.with_name(f"{args.out.name}.json"))


if __name__ == "__main__":
    main()
