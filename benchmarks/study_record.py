"""The record of a study: every trial, every point with its interval, the findings.

    python -m benchmarks.study_record --run runs/digits --out benchmarks/records/2026-11-28-digits

The tables go into that folder as CSV; the JSON beside it holds the same with the study's own
configuration, the versions that ran it and the time of its stages.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.csv

from benchmarks.recording import Record
from raygrad.report.attributes import attributes
from raygrad.report.chapter import run_panels
from raygrad.report.figures.accuracy import accuracy_table
from raygrad.report.figures.attributes import attributes_table
from raygrad.report.findings import findings
from raygrad.report.results import Panel
from raygrad.report.tables import Run, read_run
from raygrad.report.wording import bracket_words
from raygrad.runs.journal import wall_s
from raygrad.selection.attributes import Attributes


def points(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Yields every point of every curve with all of its replicates."""
    for panel in panels:
        curves = {**panel.curves, **({"full data": (panel.full,)} if panel.full else {})}
        for method, of in curves.items():
            for p in of:
                yield {
                    "network": panel.network,
                    "protocol": panel.protocol,
                    "method": method,
                    "keep_fraction": p.keep_fraction,
                    "seeds": p.seeds,
                    "score_seeds": p.score_seeds,
                    "test_accuracy": p.values,
                    "mean": p.interval.mean,
                    "low": p.interval.low,
                    "high": p.interval.high,
                    "interval_over": len(p.samples),
                }


def stages(run: Run) -> Iterator[dict[str, Any]]:
    """Yields the stages of the run with their starts, wall time and versions of raygrad."""
    for name in dict.fromkeys(entry.stage for entry in run.journal):
        of = [entry for entry in run.journal if entry.stage == name]
        versions = sorted({entry.version for entry in of})
        yield {"stage": name, "starts": len(of), "wall_s": wall_s(of), "versions": versions}


def attribute_lines(found: dict[str, Attributes]) -> list[str]:
    """Returns both attributes of each network and protocol, in words."""
    lines = []
    for name, of in found.items():
        x = of.simplicity
        lines.append(
            f"{name}: simplicity {x.mean:.4f} ({x.low:.4f} to {x.high:.4f}), n = {x.num_seeds}"
        )
        lines += [f"redundancy by {m}: {bracket_words(b)}" for m, b in of.redundancy.items()]
    return lines


def main() -> None:
    """Reads a run and writes its tables and its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="the run folder")
    parser.add_argument("--out", required=True, type=Path, help="where the tables go")
    args = parser.parse_args()
    run, out = read_run(args.run), args.out
    out.mkdir(parents=True, exist_ok=True)
    if run.results is None:
        parser.error(f"a record of a study needs its sweep, got {args.run} without one")
    panels = run_panels(run)
    found = {f"{p.network} {p.protocol}": a for p in panels if (a := attributes(p)) is not None}
    tables = {"trials": run.results, "accuracy": accuracy_table(panels)}
    if found:
        tables["attributes"] = attributes_table(found)
    for name, table in tables.items():
        pyarrow.csv.write_csv(table, out / f"{name}.csv")
    lines = [*(finding.text for finding in findings(panels)), *attribute_lines(found)]
    (out / "findings.txt").write_text("\n".join(lines) + "\n")
    # The machine is that which made the tables, and says so; the study's is in its page.
    record = Record(
        f"The study of {run.name}; machine and source are those that made its tables.",
        settings={"study": run.config, "data": run.dataset},
    )
    record.add_table("points", points(panels))
    record.add_table("stages", stages(run))
    record.add_table("findings", ({"text": line} for line in lines))
    record.write(out.with_name(f"{out.name}.json"))


if __name__ == "__main__":
    main()
