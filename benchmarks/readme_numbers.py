"""Recomputes the numbers of README from the tables of records, and fails on a difference.

    python benchmarks/readme_numbers.py                  # status 1 if a declared number differs
    python benchmarks/readme_numbers.py --uncovered      # sentences with numbers not declared
    python benchmarks/readme_numbers.py --fresh runs/digits    # a fresh study against its record

A number is a line of `NUMBERS`: the words of README with {} where the numbers stand, and what
gives them, each as README writes it. Line ends of README do not matter.
"""

import argparse
import csv
import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"
README = ROOT / "README.md"

DIGITS = "2026-11-28-digits/accuracy.csv"
MNIST_NETWORKS = "2026-11-29-mnist-networks/accuracy.csv"
MNIST_FINDINGS = "2026-11-29-mnist-networks/findings.txt"
MNIST_NOISE = "2026-11-23-mnist/label_noise.csv"
PHOTOGRAPHS = "2026-11-29-photographs/accuracy.csv"
CIFAR = "2026-11-29-cifar10-fast/accuracy.csv"
CIFAR_FOUND = "2026-11-29-noise/found.csv"
CIFAR_CLEANED = "2026-11-29-noise/less_random.csv"
NORMS, VGG = "2026-11-23-gradient-norms.json", "VGG16 32 px, 16, n = 3"
LAST_LAYER = "grad_l2_last_layer_weights"
RANDOM, LARGEST = "random", "max_gradient"
LESS_EXTREME, BY_CHANCE = "non_extreme_max_gradient", "gradient_cdf"


@functools.cache
def rows(record: str) -> list[dict[str, str]]:
    """Returns the rows of a record's CSV, as text."""
    with (RECORDS / record).open(newline="") as stream:
        return list(csv.DictReader(stream))


def value(record: str, column: str = "mean", **where: object) -> float:
    """Returns a cell of a record's CSV: of the one row that is as asked for.

    Raises:
        LookupError: None is, or several are.
    """
    found = [row for row in rows(record) if all(_same(row[k], v) for k, v in where.items())]
    if len(found) != 1:
        raise LookupError(f"{record} must have one row of {where}, got {len(found)}.")
    return float(found[0][column])


def cell(record: str, under: str, row: str, column: str) -> str:
    """Returns a cell of a table of a record's JSON, as its page writes it.

    Args:
        record: The JSON's name.
        under: The heading that the table stands under.
        row: What stands in its first column.
        column: The column's name.
    """
    content = json.loads((RECORDS / record).read_text())
    for table in content["tables"]:
        for cells in table["rows"]:
            if table["under"] == under and cells[0] == row and column in table["columns"]:
                return str(cells[table["columns"].index(column)])
    raise LookupError(f"{record} must have {column} of {row} under {under!r}, got none.")


def _same(text: str, wanted: object) -> bool:
    if isinstance(wanted, float):
        return abs(float(text) - wanted) < 1e-6
    return text == str(wanted)


def percent(number: float, digits: int = 1, sign: str = "%") -> str:
    """Returns a share as a percentage, halves rounded up as people do."""
    return f"{100 * number + 1e-9:.{digits}f}{sign}"


def accuracy(record: str, method: str, share: float, digits: int = 1, **of: object) -> str:
    """Returns a mean test accuracy of a record, under equal epochs; `of` names other columns."""
    where = {"method": method, "keep_fraction": share, "protocol": "equal_epochs"} | of
    return percent(value(record, **where), digits)


def ends(record: str, method: str, share: float, digits: int = 2) -> tuple[str, str]:
    """Returns both ends of a mean test accuracy's interval."""
    where: dict[str, Any] = {"method": method, "keep_fraction": share, "protocol": "equal_epochs"}
    low, high = (percent(value(record, end, **where), digits, "") for end in ("low", "high"))
    return low, high


@dataclass(frozen=True)
class Number:
    """Some words of README with the numbers in them."""

    text: str
    """As README has it, with {} for each number."""
    numbers: Callable[[], Sequence[str]]
    """Gives them from records, in order."""

    def expected(self) -> str:
        """Returns the words with the numbers that the records give."""
        return self.text.format(*self.numbers())


NUMBERS: list[Number] = [
    Number(
        "random {}, the gradient methods {} to {}",
        lambda: (accuracy(DIGITS, RANDOM, 0.01), *_range(DIGITS, 0.01, 1)),
    ),
    Number(
        "they may leave out {}, random {}",
        lambda: [
            _bracket(MNIST_FINDINGS, "cnn equal_epochs", m) for m in (_by("cnn", LARGEST), RANDOM)
        ],
    ),
    Number(
        "random subsets of 175 images win by far ({} against {} for the largest gradients)",
        lambda: [_cnn(m, 175 / 54_000, 1) for m in (RANDOM, _by("cnn", LARGEST))],
    ),
    Number(
        "with 3% `non_extreme_max_gradient` is ahead ({} against {})",
        lambda: [_cnn(m, 0.03) for m in (_by("cnn", LESS_EXTREME), RANDOM)],
    ),
    Number(
        "with 10% the largest gradients reach {} ({} to {}; random {})",
        lambda: (
            _cnn(_by("cnn", LARGEST), 0.1),
            *ends(MNIST_NETWORKS, _by("cnn", LARGEST), 0.1),
            _cnn(RANDOM, 0.1),
        ),
    ),
    Number(
        "an MLP's serve the CNN as its own ({} against {} with 3%)",
        lambda: [_cnn(_by(scored, LESS_EXTREME), 0.03) for scored in ("mlp", "cnn")],
    ),
    Number(
        "({} with 30% of the images, {} by `max_gradient`)",
        lambda: [accuracy(CIFAR, m, 0.3) for m in (RANDOM, LARGEST)],
    ),
    Number(
        "with 50% the gradient methods lead by {} to {} points",
        lambda: _gains(CIFAR, 0.5),
    ),
    Number(
        "({} by `non_extreme_max_gradient`, random {})",
        lambda: [accuracy(CIFAR, m, 0.5) for m in (LESS_EXTREME, RANDOM)],
    ),
    Number(
        "CIFAR-10 (JPEG), a fast network ({} with all)",
        lambda: [accuracy(CIFAR, "full data", 1.0)],
    ),
    Number(
        "photographs of 96 pixels, a small VGG16 ({} with all)",
        lambda: [accuracy(PHOTOGRAPHS, "full data", 1.0, network="small_vgg16")],
    ),
    Number(
        "({} with 30%, {} by `max_gradient`)",
        lambda: [
            accuracy(PHOTOGRAPHS, method, 0.3, network="small_vgg16")
            for method in (RANDOM, _by("small_vgg16", LARGEST))
        ],
    ),
    Number(
        "an area under the ROC curve of {}",
        lambda: [
            f"{value(MNIST_NOISE, 'auc', table='cnn', score='grad_l2_last_layer_weights'):.4f}"
        ],
    ),
    Number(
        "the norm finds them with an area of {}, the loss with {}; "
        "changed to a like class, {} and {}",
        lambda: [
            f"{value(CIFAR_FOUND, 'auc', kind=kind, score=s):.3f}"
            for kind in ("symmetric", "confused")
            for s in (LAST_LAYER, "loss")
        ],
    ),
    Number(
        "accuracy is {} and {} points (not told apart) above a random rest",
        lambda: [
            f"{value(CIFAR_CLEANED, 'points', kind=kind, method='cleaned_by_norm'):.1f}"
            for kind in ("symmetric", "confused")
        ],
    ),
    Number("costs {} to {} passes", lambda: _passes()),
    Number(
        "| l2 on VGG16 at 32 px, passes | {} | {} | {} | {} |",
        lambda: [
            cell(NORMS, "Gradient norms beside their peers", way, VGG).split(" ")[0].strip(",")
            for way in ("raygrad l2", "Opacus l2 (ghost)", "BackPACK l2, l1", "vmap(grad) l2, l1")
        ],
    ),
]
"""Every number of README that comes from a table."""


def _range(record: str, share: float, digits: int) -> tuple[str, str]:
    """Returns the lowest and the highest mean of the methods of gradients at a share."""
    where: dict[str, Any] = {"keep_fraction": share, "protocol": "equal_epochs"}
    found = [value(record, method=m, **where) for m in (LARGEST, LESS_EXTREME, BY_CHANCE)]
    return percent(min(found), digits, ""), percent(max(found), digits)


def _gains(record: str, share: float) -> tuple[str, str]:
    """Returns the least and the most points that the methods of gradients are above random."""
    where: dict[str, Any] = {"keep_fraction": share, "protocol": "equal_epochs"}
    random = value(record, method=RANDOM, **where)
    found = [value(record, method=m, **where) for m in (LARGEST, LESS_EXTREME, BY_CHANCE)]
    return percent(min(found) - random, 1, ""), percent(max(found) - random, 1, "")


def _by(scored: str, method: str) -> str:
    """Returns how a method by one network's scores is called where there are several."""
    return f"{method} (scored by {scored})"


def _cnn(method: str, share: float, digits: int = 2) -> str:
    """Returns the CNN's accuracy on MNIST."""
    return accuracy(MNIST_NETWORKS, method, share, digits, network="cnn")


def _bracket(findings: str, panel: str, method: str) -> str:
    """Returns between which shares a method's redundancy lies, in words of a record's findings."""
    lines = (RECORDS / findings).read_text().splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(f"{panel}: simplicity"))
    wanted = f"redundancy by {method}: "
    return next(line.removeprefix(wanted) for line in lines[first:] if line.startswith(wanted))


def _passes() -> tuple[str, str]:
    """Returns the least and the most that l2 costs, of all networks measured at rest."""
    first, *others = json.loads((RECORDS / NORMS).read_text())["tables"][:3]
    found = next(row for row in first["rows"] if row[0] == "raygrad l2")[1:]
    found += [cells[1] for cells in others[0]["rows"]]
    found += next(row for row in others[1]["rows"] if row[0] == "raygrad l2, l1")[1:]
    costs = [float(re.split("[ ,]", text)[0]) for text in found]
    return f"{min(costs):.1f}", f"{max(costs):.1f}"


def flowed(text: str) -> str:
    """Returns a text with every run of white space a single space."""
    return re.sub(r"\s+", " ", text)


def differences(readme: str, numbers: Sequence[Number]) -> list[str]:
    """Returns what README must say and does not, each a sentence.

    Args:
        readme: README's text.
        numbers: What is declared of it.
    """
    text = flowed(readme)
    return [
        f"README must say {expected!r}, as the records do; it does not."
        for expected in (number.expected() for number in numbers)
        if flowed(expected) not in text
    ]


def uncovered(readme: str, numbers: Sequence[Number]) -> list[str]:
    """Returns sentences of README, outside of code, with numbers that are not declared."""
    text = flowed(re.sub(r"```.*?```", " ", readme, flags=re.DOTALL))
    for number in numbers:
        text = text.replace(flowed(number.expected()), " ")
    text = re.sub(r"`[^`]*`|\([^()]*\.(md|png|csv|json)\)|\bv?\d+\.\d+\.\d+\b", " ", text)
    return [part.strip() for part in re.split(r"(?<=[.:;])\s|\|", text) if re.search(r"\d", part)]


def fresh_differences(results: Path, record: Path) -> list[str]:
    """Returns where a fresh digits study and its record differ, trial by trial.

    Args:
        results: The study's `sweep/results.parquet`.
        record: The record's `trials.csv`.
    """
    import pyarrow.parquet as pq

    found = {row["trial"]: row["test_accuracy"] for row in pq.read_table(results).to_pylist()}
    with record.open(newline="") as stream:
        recorded = {row["trial"]: float(row["test_accuracy"]) for row in csv.DictReader(stream)}
    out = [
        f"trial {name} is in one of them only" for name in sorted(found.keys() ^ recorded.keys())
    ]
    for name in sorted(found.keys() & recorded.keys()):
        if abs(found[name] - recorded[name]) > 1e-9:
            out.append(f"trial {name}: {found[name]:.6f} now, {recorded[name]:.6f} recorded")
    return out


def main() -> int:
    """Compares; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uncovered", action="store_true", help="list what is not declared")
    parser.add_argument("--fresh", help="the run folder of a fresh digits study")
    parser.add_argument("--record", default=str(RECORDS / "2026-11-28-digits" / "trials.csv"))
    args = parser.parse_args()
    readme = README.read_text(encoding="utf-8")
    if args.uncovered:
        print("\n".join(uncovered(readme, NUMBERS)))
        return 0
    if args.fresh:
        found = fresh_differences(Path(args.fresh, "sweep", "results.parquet"), Path(args.record))
    else:
        found = differences(readme, NUMBERS)
    print("\n".join(found) or f"README: {len(NUMBERS)} sentences hold as the records have them")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
