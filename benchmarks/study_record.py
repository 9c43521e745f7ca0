"""The tables of a study for its record: every trial, every point with its interval, the findings.

python -m benchmarks.study_record --run runs/digits --out benchmarks/records/2026-11-28-digits
"""

import argparse
from pathlib import Path

import pyarrow.csv

from raygrad.report.attributes import attributes
from raygrad.report.chapter import run_panels
from raygrad.report.figures.accuracy import accuracy_table
from raygrad.report.figures.attributes import attributes_table
from raygrad.report.findings import findings
from raygrad.report.tables import read_run
from raygrad.report.wording import bracket_words


def main() -> None:
    """Reads a run and writes its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="the run folder")
    parser.add_argument("--out", required=True, help="where the tables go")
    args = parser.parse_args()
    run, out = read_run(args.run), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    assert run.results is not None, "a record of a study needs its sweep"
    panels = run_panels(run)
    found = {f"{p.network} {p.protocol}": a for p in panels if (a := attributes(p)) is not None}
    tables = {"trials": run.results, "accuracy": accuracy_table(panels)}
    if found:
        tables["attributes"] = attributes_table(found)
    for name, table in tables.items():
        pyarrow.csv.write_csv(table, out / f"{name}.csv")
    lines = [finding.text for finding in findings(panels)]
    for name, of in found.items():
        x = of.simplicity
        lines.append(
            f"{name}: simplicity {x.mean:.4f} ({x.low:.4f} to {x.high:.4f}), n = {x.num_seeds}"
        )
        lines += [f"redundancy by {m}: {bracket_words(b)}" for m, b in of.redundancy.items()]
    (out / "findings.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
