"""A sweep's results as curves: which trials belong together, and how accurate each group is."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from raygrad.report.intervals import CONFIDENCE, Interval, mean_interval
from raygrad.report.mixed import without_mixed
from raygrad.selection.attributes import MAX_LOSS, means_by_group

log = logging.getLogger("raygrad")

BASELINE = "random"
FULL = 1.0
STILL_IMPROVING = "still improving at its end"
BEST_AT_FIRST = "best at its first validation"
_OWN = "made elsewhere"

# What a column holds where an older sweep did not write it.
_DEFAULTS: Mapping[str, Any] = {
    "network": "network",
    "score_network": None,
    "score_column": None,
    "score_run": None,
    "method": None,
    "keep_fraction": None,
    "protocol": "equal_epochs",
    "seed": 0,
    "score_seed": None,
    "test_accuracy": None,
    "train_time_s": math.nan,
    "num_workers": None,
    "budget": None,
    "best_epoch": None,
    "epochs": None,
    "num_validations": None,
    "still_improving": None,
    "best_at_first": None,
}


@dataclass(frozen=True)
class Trial:
    """One retraining: what was drawn, from which scores, and how accurate the network became."""

    network: str
    score_network: str | None
    score_column: str | None
    score_run: str | None
    method: str
    keep_fraction: float
    protocol: str
    seed: tuple[int, ...]
    test_accuracy: float
    train_time_s: float
    budget: int | None
    score_seed: int | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    num_validations: int | None = None
    still_improving: bool | None = None
    best_at_first: bool | None = None
    num_workers: int | None = None

    @property
    def device_time_s(self) -> float:
        """Training time over all its workers, in seconds; NaN where it is not known."""
        return (
            math.nan if self.train_time_s is None else self.train_time_s * (self.num_workers or 1)
        )

    @property
    def marks(self) -> frozenset[str]:
        """What is doubtful about it: ``STILL_IMPROVING``, ``BEST_AT_FIRST``, or nothing.

        Rows without these columns, of older runs, are judged by their best epoch, if they have it.
        """
        known = self.best_epoch is not None and self.epochs is not None
        still = known and self.best_epoch == self.epochs
        first = known and self.best_epoch == 1 and self.epochs != 1
        found = {
            STILL_IMPROVING: still if self.still_improving is None else self.still_improving,
            BEST_AT_FIRST: first if self.best_at_first is None else self.best_at_first,
        }
        return frozenset(name for name, is_so in found.items() if is_so)


@dataclass(frozen=True)
class Point:
    """One point of a curve: the trials of one series at one fraction, by replicate.

    Attributes:
        keep_fraction: The share of the data kept, in (0, 1].
        seeds: Each replicate: the seeds of its draw, weights and order, and of its scoring network.
        values: Test accuracy of each replicate, in [0, 1].
        interval: Their mean and its 95% interval, over ``samples``, ended at 0 and 1.
        train_time_s: Mean training time, in seconds.
        score_seeds: The scoring network's seed of each replicate; empty where nothing tells them.
        num_still_improving: Trials whose best validation was their last.
        num_best_at_first: Trials whose best validation was their first.
        num_trials: Trials in all.
        device_time_s: Mean training time over all workers of a trial, in seconds.
    """

    keep_fraction: float
    seeds: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    interval: Interval
    train_time_s: float
    score_seeds: tuple[int | None, ...] = ()
    num_still_improving: int = 0
    num_best_at_first: int = 0
    num_trials: int = 0
    device_time_s: float = math.nan

    @property
    def samples(self) -> tuple[float, ...]:
        """What intervals are over: a mean a scoring network, or the values of the only one.

        See :func:`raygrad.selection.attributes.means_by_group` for why.
        """
        groups = dict(zip(self.seeds, self.score_seeds, strict=False))
        return tuple(means_by_group(dict(zip(self.seeds, self.values, strict=True)), groups))

    @property
    def num_score_networks(self) -> int:
        """How many scoring networks its replicates come from; at least 1."""
        return max(1, len(set(self.score_seeds)))


@dataclass(frozen=True)
class Panel:
    """The curves of one network under one protocol, the unit that accuracy is compared in.

    Attributes:
        network: The network that was retrained.
        protocol: ``equal_epochs`` or ``equal_steps``.
        curves: Points of each series by rising fraction, without the full data.
        full: Accuracy on the full data, or None where no trial has it.
        resolution: ``1 / num_test``, or 0 where it is not known.
        epochs: The most epochs that a trial of it ran, None where it is not known.
        chance: The accuracy of a guess; 0 where the number of classes is not known.
    """

    network: str
    protocol: str
    curves: Mapping[str, tuple[Point, ...]]
    full: Point | None
    resolution: float = 0.0
    epochs: int | None = None
    chance: float = 0.0

    @property
    def learned(self) -> bool:
        """Whether all the data teach more than a guess; else no share of it can be too little."""
        return self.full is not None and self.full.interval.mean - MAX_LOSS > self.chance

    @property
    def score_network_counts(self) -> tuple[int, int]:
        """How many scoring networks stand behind a method's point: the fewest and the most."""
        counts = [
            p.num_score_networks
            for name, points in self.curves.items()
            if name != BASELINE
            for p in points
        ]
        return min(counts, default=1), max(counts, default=1)


def trials_of(results: pa.Table) -> list[Trial]:
    """The rows of a results table, old or new, that have a method, a fraction and an accuracy.

    Args:
        results: ``sweep/results.parquet``; missing columns of older sweeps get their defaults, and
            means of several recipes or data sets are left out, which is said.
    """
    results, notes = without_mixed(results)
    for note in notes:
        log.warning("sweep: %s", note)
    size = results.num_rows
    columns: dict[str, list[Any]] = {
        name: results[name].to_pylist() if name in results.column_names else [default] * size
        for name, default in _DEFAULTS.items()
    }
    seeds = [
        name
        for name in ("seed", "subset_seed", "init_seed", "order_seed", "score_seed")
        if name in results.column_names
    ]
    seed_rows = list(zip(*(results[name].to_pylist() for name in seeds), strict=True)) or [
        (i,) for i in range(size)
    ]
    out = []
    for i in range(size):
        row = {name: values[i] for name, values in columns.items()}
        accuracy = row["test_accuracy"]
        if row["method"] is None or row["keep_fraction"] is None or accuracy is None:
            continue
        if math.isnan(accuracy):
            continue
        out.append(Trial(**{**row, "seed": seed_rows[i]}))
    return out


def series_names(trials: Iterable[Trial]) -> dict[Trial, str]:
    """The name of each trial's series, as short as it stays unambiguous for its network.

    The method alone names the series unless the network was retrained on draws from several score
    columns, or on one from the scores of several networks or runs; what does not matter to
    ``random`` is left out. The user's own subsets of that name stand apart from raygrad's.
    """
    trials = list(trials)
    seen: dict[tuple[str | None, ...], set[str | None]] = defaultdict(set)
    drawn = {t.network for t in trials if t.method == BASELINE and not _is_own(t)}
    runs = _run_names(trials)
    for t in trials:
        path = _score_path(t, runs)
        for i in range(2, len(path)):
            seen[path[:i]].add(path[i])
    names = {}
    for t in trials:
        path = _score_path(t, runs)
        origin = (t.score_column or _OWN, f"scored by {t.score_network}")
        parts = [
            text
            for i, text in enumerate((*origin, f"of {path[-1]}"), start=2)
            if t.method != BASELINE and len(seen[path[:i]]) > 1 and (path[i] or i == 2)
        ]
        if t.method == BASELINE and _is_own(t) and t.network in drawn:
            parts = [_OWN]
        names[t] = f"{t.method} ({', '.join(parts)})" if parts else t.method
    return names


def _is_own(t: Trial) -> bool:
    """Whether the subset was made elsewhere: raygrad's name the network they stand beside."""
    return t.score_network is None and t.score_seed is None


def _run_names(trials: Iterable[Trial]) -> dict[Trial, str | None]:
    """The other run that each trial was scored by: NAME-DIGEST of the scored table.

    Scoring networks of one run have a table each, and are replicates of one series: it has the
    NAME alone, unless runs of one name have different tables for one scoring seed.
    """
    trials = list(trials)
    tables: dict[tuple[str, int], set[str]] = defaultdict(set)
    for t in trials:
        if t.score_run is not None and t.score_seed is not None:
            tables[t.score_run.rpartition("-")[0], t.score_seed].add(t.score_run)
    several = {name for (name, _), found in tables.items() if len(found) > 1}
    names = {}
    for t in trials:
        name = (t.score_run or "").rpartition("-")[0]
        is_replicate = t.score_seed is not None and name and name not in several
        names[t] = name if is_replicate else t.score_run
    return names


def _score_path(t: Trial, runs: Mapping[Trial, str | None]) -> tuple[str | None, ...]:
    """What names a series, each told only if the ones before it leave several."""
    return t.network, t.method, t.score_column, t.score_network, runs[t]


def _one_per_seed(trials: Iterable[Trial]) -> dict[tuple[int, ...], float]:
    """Accuracies by seed, in order; equal trials count once."""
    by_seed: dict[tuple[int, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        by_seed[trial.seed].append(trial)
    return {
        seed: math.fsum(t.test_accuracy for t in group) / len(group)
        for seed, group in sorted(by_seed.items(), key=lambda item: _in_order(item[0]))
    }


def _in_order(seed: tuple[int | None, ...]) -> list[tuple[bool, int]]:
    """Seeds by number, one that nobody knows (as of a subset made elsewhere) first."""
    return [(number is not None, number or 0) for number in seed]


def _mean_time_s(times: Iterable[float | None]) -> float:
    """The mean of the times that are known, in seconds; NaN where none is."""
    known = [t for t in times if t is not None and not math.isnan(t)]
    return math.fsum(known) / len(known) if known else math.nan


def _point(fraction: float, trials: Sequence[Trial], resolution: float) -> Point:
    by_seed = _one_per_seed(trials)
    score_seed = {t.seed: t.score_seed for t in trials}
    marks = [t.marks for t in trials]
    point = Point(
        fraction,
        tuple(by_seed),
        tuple(by_seed.values()),
        Interval(math.nan, math.nan, math.nan, 0),
        _mean_time_s(t.train_time_s for t in trials),
        tuple(score_seed[seed] for seed in by_seed),
        sum(STILL_IMPROVING in of for of in marks),
        sum(BEST_AT_FIRST in of for of in marks),
        len(marks),
        _mean_time_s(t.device_time_s for t in trials),
    )
    interval = mean_interval(point.samples, CONFIDENCE, resolution / math.sqrt(_least_size(point)))
    return replace(point, interval=interval.within(0.0, 1.0))


def _least_size(point: Point) -> int:
    """How many values a sample of the point is the mean of, at least: rounding is less by that."""
    if point.num_score_networks < 2:
        return 1
    return min(Counter(point.score_seeds).values())


def panels_of(
    trials: list[Trial], num_test: Mapping[str, int] | None = None, chance: float = 0.0
) -> list[Panel]:
    """Curves by network and protocol.

    On the full data every method draws the same set, so those trials are one point, counted once a
    seed whatever method they are listed under.

    Args:
        trials: Rows of the sweep.
        num_test: Test examples by network, the resolution of its accuracy.
        chance: The accuracy of a guess.
    """
    names = series_names(trials)
    resolution = {name: 1 / n for name, n in (num_test or {}).items() if n}
    grouped: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        grouped[trial.network, trial.protocol].append(trial)
    panels = []
    for (network, protocol), group in sorted(grouped.items()):
        step = resolution.get(network, 0.0)
        full = [t for t in group if t.keep_fraction >= FULL]
        # Both protocols train alike on the full data; a sweep may have run it under one of them.
        full = full or [t for t in trials if t.network == network and t.keep_fraction >= FULL]
        # The user's own subset of everything, of the same seeds, would stand for a scoring network.
        full = [t for t in full if not _is_own(t)] or full
        points: dict[str, dict[float, list[Trial]]] = defaultdict(lambda: defaultdict(list))
        for t in group:
            if t.keep_fraction < FULL:
                points[names[t]][t.keep_fraction].append(t)
        curves = {
            name: tuple(_point(f, rows, step) for f, rows in sorted(by_fraction.items()))
            for name, by_fraction in sorted(points.items())
        }
        epochs = max((t.epochs for t in group if t.epochs is not None), default=None)
        whole = _point(FULL, full, step) if full else None
        panels.append(Panel(network, protocol, curves, whole, step, epochs, chance))
    return panels


def summary_rows(results: pa.Table) -> list[dict[str, Any]]:
    """One row a method, fraction and protocol, with the accuracy's mean and standard deviation.

    Args:
        results: ``sweep/results.parquet``.

    Returns:
        Dicts of ``network``, ``method`` (with the score's column or network where a method was
        drawn from several), ``keep_fraction``, ``protocol``, ``n``, ``mean`` and ``std`` of the
        test accuracy in [0, 1] over what intervals are over (``Point.samples``): the means of
        ``score_networks`` where there are several, else the seeds of the only one; ``std`` (n - 1
        in the denominator) is NaN for one; the number of ``trials``, and of those
        ``still_improving`` and ``best_at_first``. Sorted by network, protocol, method, fraction.
    """
    trials = trials_of(results)
    names = series_names(trials)
    grouped: dict[tuple[str, str, str, float], list[Trial]] = defaultdict(list)
    for t in trials:
        grouped[t.network, t.protocol, names[t], t.keep_fraction].append(t)
    rows = []
    for (network, protocol, method, fraction), group in sorted(grouped.items()):
        point = _point(fraction, group, 0.0)
        values = point.samples
        mean = math.fsum(values) / len(values)
        spread = math.fsum((v - mean) ** 2 for v in values)
        rows.append(
            {
                "network": network,
                "method": method,
                "keep_fraction": fraction,
                "protocol": protocol,
                "n": len(values),
                "mean": mean,
                "std": math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else math.nan,
                "score_networks": point.num_score_networks,
                "trials": len(point.values),
                "still_improving": point.num_still_improving,
                "best_at_first": point.num_best_at_first,
            }
        )
    return rows
