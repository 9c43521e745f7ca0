"""Makes `records/leaderboard.md` from the trials of the records: every selector against random.

    python -m benchmarks.leaderboard            # writes the page
    python -m benchmarks.leaderboard --check    # status 1 if the page is not what the trials give

To add your own selector: name its subsets `mine-SEED.parquet`, `raygrad sweep --subsets` them
beside random subsets of the same shares, write the record (`python -m benchmarks.study_record`)
and add its folder to `SOURCES`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from benchmarks import attribute_table
from benchmarks.attribute_table import LEAST
from raygrad.report.answer import accuracy_words
from raygrad.report.comparing import Comparison, comparisons
from raygrad.report.results import BASELINE, Panel, Point, panels_of, trials_of
from raygrad.report.wording import percent, protocol_words

RECORDS = Path(__file__).parent / "records"
PAGE = RECORDS / "leaderboard.md"


@dataclass(frozen=True)
class Source:
    """The records of one data set whose trials stand beside each other.

    Attributes:
        name: The data set.
        records: Folders under `records/`, of the same recipe.
        num_test: Its test examples.
    """

    name: str
    records: tuple[str, ...]
    num_test: int


SOURCES = (
    Source("digits", ("2026-11-28-digits",), 360),
    Source("MNIST, 3 scoring CNNs", ("2026-11-29-mnist-networks",), 10_000),
    Source("MNIST, 3 scoring CNNs of 10 epochs", ("2026-11-28-mnist-replicates",), 10_000),
    Source("MNIST", ("2026-11-23-mnist", "2026-11-24-mnist-beyond"), 10_000),
    Source("photographs, 3 scoring networks of each kind", ("2026-11-29-photographs",), 800),
    Source("CIFAR-10 (JPEG), 3 scoring networks", ("2026-11-29-cifar10-fast",), 10_000),
    Source("CIFAR-10 (JPEG)", ("2026-11-24-cifar10",), 10_000),
)

HEAD = f"""# Selectors against random

Made by `python -m benchmarks.leaderboard` from the trials of the records; nothing is typed by hand.
Mean test accuracy with its 95% interval over scoring networks, or over seeds given one network;
difference from random in points with an interval of the level that Holm's method holds it to, and
its corrected p: over all methods and shares of a table a false verdict is made in one of twenty.
An entry has {LEAST} replicates or more, and so has random beside it.

Add your own in three lines (`mine-0.parquet` ... hold a column `key`; random subsets of the same
shares in the same run), the second with the folder's name in `SOURCES`:

    raygrad sweep --run runs/a --subsets 'mine-*.parquet'
    python -m benchmarks.study_record --run runs/a --out benchmarks/records/DATE-mine
    python -m benchmarks.leaderboard
"""


def read_panels(source: Source) -> list[Panel]:
    """The curves of a data set's trials, each trial once."""
    tables = [pyarrow.csv.read_csv(RECORDS / name / "trials.csv") for name in source.records]
    table = pa.concat_tables(tables, promote_options="permissive")
    first = {name: at for at, name in reversed(list(enumerate(table["trial"].to_pylist())))}
    table = table.take(pa.array(sorted(first.values())))
    networks = set(table["network"].to_pylist())
    return panels_of(trials_of(table), dict.fromkeys(networks, source.num_test))


def _replicates(point: Point) -> str:
    number = len(point.samples)
    return f"{number} {'networks' if point.num_score_networks > 1 else 'seeds'}"


def verdict(one: Comparison) -> str:
    """Whether a method beat random, was worse, or was not told apart from it."""
    return "beats" if one.better else "worse" if one.worse else "level"


def entries(panel: Panel) -> list[list[str]]:
    """The rows of a panel's table, by share and then by falling accuracy; random among them."""
    compared = {(c.method, c.keep_fraction): c for c in comparisons(panel)}
    points = [(name, p) for name, of in panel.curves.items() for p in of]
    with_random = {
        p.keep_fraction for name, p in points if name == BASELINE and len(p.samples) >= LEAST
    }
    rows = []
    for name, p in sorted(points, key=lambda e: (e[1].keep_fraction, -e[1].interval.mean, e[0])):
        if p.keep_fraction not in with_random or len(p.samples) < LEAST:
            continue
        row = [percent(p.keep_fraction), name, accuracy_words(p.interval, 2), _replicates(p)]
        one = compared.get((name, p.keep_fraction))
        if one is None:
            rows.append([*row, "", "", ""])
            continue
        mean, low, high = (100 * end for end in (one.gain.mean, one.gain.low, one.gain.high))
        p_value = "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"
        rows.append([*row, f"{mean:+.2f} ({low:+.2f} to {high:+.2f})", p_value, verdict(one)])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = ("kept", "method", "test accuracy, %", "over", "less random's, points", "p", "verdict")
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _named_panels(sources: Sequence[Source]) -> list[tuple[str, Panel]]:
    return [(source.name, panel) for source in sources for panel in read_panels(source)]


def page(sources: Sequence[Source] = SOURCES) -> str:
    """The whole page as Markdown."""
    parts = [HEAD, attribute_table.table(_named_panels(sources))]
    for source in sources:
        links = ", ".join(f"[{name}]({name}.md)" for name in source.records)
        for panel in read_panels(source):
            rows = entries(panel)
            if not rows:
                continue
            full = ""
            if panel.full is not None:
                words = accuracy_words(panel.full.interval, 2)
                full = f" All the data: {words} ({_replicates(panel.full)})."
            title = f"{source.name}, {panel.network}, {protocol_words(panel.protocol)}"
            parts.append(f"## {title}\n\nFrom {links}.{full}\n\n{_table(rows)}\n")
    return "\n".join(parts)


def main() -> int:
    """Writes the page, or says whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if it is old")
    args = parser.parse_args()
    made = page()
    if args.check:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
        print(f"{PAGE.name} {'is' if same else 'is not'} what the trials give")
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
