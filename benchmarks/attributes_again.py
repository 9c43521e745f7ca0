"""Reads simplicity and redundancy anew from the trials of earlier records, as brackets.

python -m benchmarks.attributes_again --out FOLDER/attributes.csv

The JSON of the record goes beside the folder, under its name.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.paper_claims import both_attributes
from benchmarks.recording import Record

RECORDS = Path(__file__).parent / "records"
STUDIES = {
    "MNIST": ("2026-11-23-mnist", "2026-11-24-mnist-beyond"),
    "CIFAR-10": ("2026-11-24-cifar10",),
}
"""The records of each data set; a network is read by its own scores alone."""


def main() -> None:
    """Reads and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="the CSV")
    args = parser.parse_args()
    tables = []
    for name, folders in STUDIES.items():
        found = pd.concat([pd.read_csv(RECORDS / folder / "trials.csv") for folder in folders])
        trials = found.drop_duplicates("trial")
        if "score_run" not in trials:
            trials = trials.assign(score_run=None)
        trials = trials[trials.network.isin({"cnn", "cnn5"}) & (trials.protocol == "equal_epochs")]
        table = both_attributes(trials)
        table.insert(0, "data", name)
        epochs = trials.groupby(["network", "protocol"]).epochs.max().rename("most_epochs")
        tables.append(table.join(epochs, on=["network", "protocol"]))
    both = pd.concat(tables)
    both.to_csv(args.out, index=False)
    record = Record("Simplicity and redundancy from trials of earlier records.", settings=STUDIES)
    record.add_table("attributes", both.to_dict("records"))
    record.write(args.out.parent.with_suffix(".json"))


if __name__ == "__main__":
    main()
