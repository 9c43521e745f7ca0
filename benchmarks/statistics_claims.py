"""Whether findings and intervals hold what they claim, on data whose truth is known.

    python benchmarks/statistics_claims.py --out benchmarks/records/2026-11-28-statistics.json

Simulated sweeps go through the report's own functions: comparisons of methods with random (how
often any is wrong, how often a true difference is seen), the first finding (whether it names the
better method), and the interval over replicates of several scoring networks (how often it holds the
mean over all networks).
"""

import argparse
import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.recording import Record
from raygrad.report.comparing import comparisons
from raygrad.report.findings import findings
from raygrad.report.intervals import mean_interval
from raygrad.report.results import Panel, Point, Trial, panels_of

METHODS = ("random", "better", "other", "third")
SHARES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
LEVEL, NOISE = 0.9, 0.004
SPREADS = {
    "all methods alike": (1.0, 1.0, 1.0, 1.0),
    "random twice as wide": (2.0, 1.0, 1.0, 1.0),
    "one method twice as wide": (1.0, 2.0, 1.0, 1.0),
    "one method four times as wide": (1.0, 4.0, 1.0, 1.0),
}
"""How far each of `METHODS` scatters, relative to `NOISE`."""
AT_SMALL_SHARES = {
    "one method ten times as wide at small shares": (1.0, 10.0, 1.0, 1.0),
    "all but random eight times as wide at small shares": (1.0, 8.0, 8.0, 8.0),
    "random eight times as wide at small shares": (8.0, 1.0, 1.0, 1.0),
}
"""How far each scatters below 5% of the data, and alike elsewhere: what pooling cannot model."""
SMALL = 0.05


def sweeps(
    number: int,
    replicates: int,
    spreads: Sequence[float],
    effect: float,
    seed: int = 0,
    at_small: Sequence[float] | None = None,
) -> Iterator[Panel]:
    """Yields sweeps of four methods at six shares; one is better at three of them.

    Args:
        number: How many.
        replicates: Replicates of each method and share.
        spreads: Standard deviation of each method, relative to `NOISE`.
        effect: How much better it is, in standard deviations.
        seed: Of the simulation.
        at_small: Standard deviations below 5% of the data, where they are others.
    """
    rng = np.random.default_rng(seed)
    for _ in range(number):
        curves = {}
        for at, name in enumerate(METHODS):
            points = []
            for share in SHARES:
                shift = effect if name == "better" and share in SHARES[:3] else 0.0
                wide = at_small if at_small is not None and share < SMALL else spreads
                values = LEVEL + NOISE * (shift + wide[at] * rng.normal(size=replicates))
                seeds = tuple((one,) for one in range(replicates))
                found = tuple(values.tolist())
                points.append(Point(share, seeds, found, mean_interval(found), 1.0))
            curves[name] = tuple(points)
        yield Panel("net", "equal_epochs", curves, None)


def verdicts(panels: Iterator[Panel], effect: float) -> dict[str, float]:
    """Returns how often a sweep says anything false, and the share of true differences it sees."""
    wrong, seen, number, led = 0, 0, 0, 0
    for panel in panels:
        number += 1
        compared = comparisons(panel)
        true = [c for c in compared if effect and c.method == "better" and c.keep_fraction < 0.2]
        wrong += any((c.better or c.worse) for c in compared if c not in true)
        seen += sum(c.better for c in true)
        if effect:
            first = findings([panel])[0].text
            led += "better is best at 1% (" in first
    found = {"sweeps": number, "family_wise_error": wrong / number}
    if effect:
        found |= {"power": seen / (3 * number), "first_sentence_right": led / number}
    return found


def coverage(number: int, networks: int, each: int, between: float, within: float) -> float:
    """Returns how often a point's interval holds the mean over all scoring networks.

    Args:
        number: How many simulated points.
        networks: Scoring networks of each.
        each: Retrainings by each network's scores.
        between: Standard deviation between networks, in accuracy.
        within: That of retrainings by one network's scores.
    """
    rng, held = np.random.default_rng(1), 0
    for _ in range(number):
        trials = [
            trial(s, r, 0.9 + shift + within * float(rng.normal()))
            for s, shift in enumerate(between * rng.normal(size=networks))
            for r in range(each)
        ]
        ((point,),) = panels_of(trials)[0].curves.values()
        held += point.interval.low <= 0.9 <= point.interval.high
    return held / number


def trial(score_seed: int, seed: int, accuracy: float) -> Trial:
    """Returns a retraining by one scoring network's scores."""
    return Trial(
        "net", "net", "loss", None, "better", 0.1, "equal_epochs", (seed, score_seed), accuracy,
        1.0, 9, score_seed,
    )  # fmt: skip


def main() -> None:
    """Simulates and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1000, help="simulated sweeps or points each")
    parser.add_argument("--out", required=True, help="the record, JSON")
    args = parser.parse_args()
    record = Record(
        "Findings and intervals hold what they claim on simulated data.", settings=vars(args)
    )
    record.write(args.out)
    for replicates in (3, 5):
        for name, spreads in SPREADS.items():
            found = verdicts(sweeps(args.number, replicates, spreads, 0.0), 0.0)
            record.add(what="no difference", replicates=replicates, spreads=name, **found)
        for name, wide in AT_SMALL_SHARES.items():
            panels = sweeps(args.number, replicates, (1.0,) * 4, 0.0, at_small=wide)
            found = verdicts(panels, 0.0)
            record.add(what="no difference", replicates=replicates, spreads=name, **found)
        found = verdicts(sweeps(args.number, replicates, (1.0,) * 4, 4.0), 4.0)
        record.add(what="4 deviations at 3 of 6 shares", replicates=replicates, **found)
    for networks, each in ((3, 1), (3, 3), (5, 3), (8, 3)):
        for between in (0.0, 0.01, 0.025):
            held = coverage(args.number, networks, each, between, 0.01)
            error = math.sqrt(held * (1 - held) / args.number)
            record.add(
                what="coverage", networks=networks, retrainings_each=each, between=between,
                within=0.01, points=args.number, coverage=held, standard_error=error,
            )  # fmt: skip


if __name__ == "__main__":
    main()
