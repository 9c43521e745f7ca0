"""The record of planted wrong labels, from the units that `noise_study` keeps.

    python -m benchmarks.noise_record --kept records/kept/noise --out records/DATE-noise

Means over seeds with 95% intervals (Student's t); each seed has errors and networks of its own.
Ways of cleaning are compared with the random rest as a report compares methods with random: by
Holm's method over the ways of a kind of errors.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.noise_study import WRONG
from benchmarks.recording import Record
from raygrad.report.comparing import comparisons
from raygrad.report.intervals import mean_interval
from raygrad.report.results import BASELINE, Panel, Point

LEAST = 3
"""Seeds that a mean needs."""
RANDOM = "random_rest"
"""The way that all others are compared with."""


def means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Returns mean and interval of columns in [0, 1] over seeds, a row a group.

    Raises:
        ValueError: A group has fewer than `LEAST` seeds, or a seed twice.
    """
    rows = []
    for names, of in table.groupby(list(by), sort=False, dropna=False):
        if of.seed.nunique() < LEAST or of.seed.duplicated().any():
            raise ValueError(f"a mean needs {LEAST} seeds, each once, got {list(of.seed)}: {names}")
        row: dict[str, Any] = dict(zip(by, names, strict=True))
        for column in columns:
            found = mean_interval(of[column].tolist()).within(0.0, 1.0)
            row |= {column: found.mean, f"{column}_low": found.low, f"{column}_high": found.high}
        rows.append(row | {"n": len(of)})
    return pd.DataFrame(rows)


def whole_kinds(units: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the units of kinds that have all their seeds; says which kinds have not."""
    counts = Counter(unit["kind"] for unit in units)
    for kind, count in counts.items():
        if count < LEAST:
            print(f"{kind}: {count} of {LEAST} seeds, left out of the record")
    return [unit for unit in units if counts[unit["kind"]] >= LEAST]


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
    yield "accuracy", means(trials, ["kind", "method"], ["test_accuracy"])
    yield "less_random", less_random(trials)
    yield "trials", trials


def less_random(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns by how many points each way is above the random rest, a row a kind and way.

    `low` and `high` are of the level that Holm's method holds the comparison to, `p` is corrected.
    """
    rows = []
    for kind, of in trials.groupby("kind", sort=False):
        curves = {
            BASELINE if way == RANDOM else str(way): (_point(mine),)
            for way, mine in of.groupby("method", sort=False)
        }
        for one in comparisons(Panel("", "", curves, None)):
            ends = {"points": one.gain.mean, "low": one.gain.low, "high": one.gain.high}
            found = {name: 100 * end for name, end in ends.items()}
            rows.append(
                {"kind": kind, "method": one.method, **found, "p": one.p_value, "n": one.gain.n}
            )
    return pd.DataFrame(rows)


def _point(trials: pd.DataFrame) -> Point:
    """Returns a way's trials as a report has them; all of one share, so that they are compared."""
    seeds, values = trials.seed.tolist(), trials.test_accuracy.tolist()
    return Point(1 - WRONG, tuple((s,) for s in seeds), tuple(values), mean_interval(values), 0.0)


def main() -> None:
    """Reads the units and writes tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, required=True, help="the folder of units")
    parser.add_argument("--out", type=Path, required=True, help="where the tables go")
    args = parser.parse_args()
    units = whole_kinds([json.loads(p.read_text()) for p in sorted(args.kept.glob("*.json"))])
    if not units:
        parser.error(f"a record needs {LEAST} seeds of a kind, got fewer of each in {args.kept}")
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
