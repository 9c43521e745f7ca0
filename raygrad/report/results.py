"""A sweep's results as curves: which trials belong together, and how accurate each group is."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raygrad.report.intervals import CONFIDENCE, Interval, mean_interval

BASELINE = "random"
FULL = 1.0

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
    "test_accuracy": None,
    "train_time_s": math.nan,
    "budget": None,
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


@dataclass(frozen=True)
class Point:
    """One point of a curve: the trials of one series at one fraction, by seed."""

    keep_fraction: float
    seeds: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    interval: Interval
    train_time_s: float


@dataclass(frozen=True)
class Panel:
    """The curves of one network under one protocol, the unit that accuracy is compared in.

    Attributes:
        network: The network that was retrained.
        protocol: ``equal_epochs`` or ``equal_steps``.
        curves: Points of each series by rising fraction, without the full data.
        full: Accuracy on the full data, or None where no trial has it.
        resolution: ``1 / num_test``, or 0 where it is not known.
    """

    network: str
    protocol: str
    curves: Mapping[str, tuple[Point, ...]]
    full: Point | None
    resolution: float = 0.0


def trials_of(results: pa.Table) -> list[Trial]:
    """The rows of a results table, old or new, that have a method, a fraction and an accuracy.

    Args:
        results: ``sweep/results.parquet``; missing columns of older sweeps get their defaults.
    """
    size = results.num_rows
    columns: dict[str, list[Any]] = {
        name: results[name].to_pylist() if name in results.column_names else [default] * size
        for name, default in _DEFAULTS.items()
    }
    seeds = [
        name
        for name in ("seed", "subset_seed", "init_seed", "order_seed")
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
    ``random`` is left out.
    """
    trials = list(trials)
    seen: dict[tuple[str | None, ...], set[str | None]] = defaultdict(set)
    for t in trials:
        path = _score_path(t)
        for i in range(2, len(path)):
            seen[path[:i]].add(path[i])
    names = {}
    for t in trials:
        path = _score_path(t)
        said = (t.score_column or "made elsewhere", f"scored by {t.score_network}")
        parts = [
            text
            for i, text in enumerate((*said, f"of {t.score_run}"), start=2)
            if t.method != BASELINE and len(seen[path[:i]]) > 1 and (path[i] or i == 2)
        ]
        names[t] = f"{t.method} ({', '.join(parts)})" if parts else t.method
    return names


def _score_path(t: Trial) -> tuple[str | None, ...]:
    """What names a series, each told only if the ones before it leave several."""
    return t.network, t.method, t.score_column, t.score_network, t.score_run


def _one_per_seed(trials: Iterable[Trial]) -> tuple[dict[tuple[int, ...], float], float]:
    """Accuracies by seed, in order, and the mean training time; equal trials count once."""
    by_seed: dict[tuple[int, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        by_seed[trial.seed].append(trial)
    accuracies = {
        seed: math.fsum(t.test_accuracy for t in group) / len(group)
        for seed, group in sorted(by_seed.items())
    }
    times = [t.train_time_s for group in by_seed.values() for t in group]
    finite = [t for t in times if t is not None and not math.isnan(t)]
    return accuracies, math.fsum(finite) / len(finite) if finite else math.nan


def _point(fraction: float, trials: Iterable[Trial], resolution: float) -> Point:
    by_seed, time_s = _one_per_seed(trials)
    values = tuple(by_seed.values())
    interval = mean_interval(values, CONFIDENCE, resolution)
    return Point(fraction, tuple(by_seed), values, interval, time_s)


def panels_of(trials: list[Trial], num_test: Mapping[str, int] | None = None) -> list[Panel]:
    """Curves by network and protocol.

    On the full data every method draws the same set, so those trials are one point, counted once a
    seed whatever method they are listed under.

    Args:
        trials: Rows of the sweep.
        num_test: Test examples by network, the resolution of its accuracy.
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
        points: dict[str, dict[float, list[Trial]]] = defaultdict(lambda: defaultdict(list))
        for t in group:
            if t.keep_fraction < FULL:
                points[names[t]][t.keep_fraction].append(t)
        curves = {
            name: tuple(_point(f, rows, step) for f, rows in sorted(by_fraction.items()))
            for name, by_fraction in sorted(points.items())
        }
        panels.append(
            Panel(network, protocol, curves, _point(FULL, full, step) if full else None, step)
        )
    return panels


def main_panel(panels: Sequence[Panel], network: str | None) -> Panel | None:
    """The panel that stands for a run: its main network's under equal epochs, if there is one.

    Args:
        panels: All panels of the run.
        network: The network whose scores the sweep used most.
    """
    ranked = sorted(panels, key=lambda p: (p.network != network, p.protocol))
    return next(iter(ranked), None)


def summary_rows(results: pa.Table) -> list[dict[str, Any]]:
    """One row a method, fraction and protocol, with the accuracy's mean and standard deviation.

    Args:
        results: ``sweep/results.parquet``.

    Returns:
        Dicts of ``network``, ``method`` (with the score's column or network where a method was
        drawn from several), ``keep_fraction``, ``protocol``, ``n`` (seeds), ``mean`` and ``std`` of
        the test accuracy in [0, 1]; ``std`` (n - 1 in the denominator) is NaN for one seed. Sorted
        by network, protocol, method and fraction.
    """
    trials = trials_of(results)
    names = series_names(trials)
    grouped: dict[tuple[str, str, str, float], list[Trial]] = defaultdict(list)
    for t in trials:
        grouped[t.network, t.protocol, names[t], t.keep_fraction].append(t)
    rows = []
    for (network, protocol, method, fraction), group in sorted(grouped.items()):
        by_seed, _ = _one_per_seed(group)
        values = list(by_seed.values())
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
            }
        )
    return rows
