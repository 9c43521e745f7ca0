"""Which retrainings may stand beside those that are asked for now, and which are set aside."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from raygrad.config import StudyConfig
from raygrad.pipeline.stages import retraining_inputs
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ASIDE, ResultRows
from raygrad.storage.manifest import read_marker
from raygrad.training.trial import Trial

log = logging.getLogger("raygrad")


def settle_rows(rows: ResultRows, trials: Sequence[Trial]) -> None:
    """Sets aside rows that would share a mean with a trial and are of something else.

    These are rows of other data or another recipe, and rows whose subset was drawn otherwise. What
    was set aside before and is asked for again is taken back, so that nothing is trained twice.

    Args:
        rows: The rows of the run's sweep.
        trials: What is asked for now.
    """
    rows.take_back({trial.id for trial in trials})
    other = others(rows.rows.values(), trials)
    if other:
        first = other[0]
        log.warning(
            "sweep: retrainings must be of the data, recipe and draws that are asked for to share "
            "a mean, got %d that are not, such as %s %s %g seed %d; they are set aside in "
            "sweep/%s and come back when they are asked for",
            len(other),
            *(first[name] for name in ("network", "method", "keep_fraction", "seed")),
            ASIDE,
        )
        rows.set_aside([row["trial"] for row in other])


def set_aside_redrawn(
    layout: RunLayout, series: Collection[tuple[str, float, str, str, str | None]]
) -> None:
    """Sets aside retrainings, of any seed, on subsets that are drawn otherwise now.

    A random subset owes nothing to scores: whether it is another one a sweep sees by its keys.

    Args:
        layout: The run folder.
        series: Method, keep_fraction, score_network, score_column and score_run of the draws.
    """
    if not series:
        return
    rows = ResultRows(layout.sweep, layout.results)
    names = "method", "keep_fraction", "score_network", "score_column", "score_run"
    rows.set_aside(
        [
            trial
            for trial, row in rows.rows.items()
            if row["method"] != "random" and tuple(row.get(name) for name in names) in series
        ]
    )


def others(rows: Iterable[Mapping[str, Any]], trials: Sequence[Trial]) -> list[Mapping[str, Any]]:
    """Returns the rows that would share a mean with a trial and are of something else.

    A row stands in a trial's place if it has its series, fraction and seeds. Where one does, draws
    are made otherwise than they were, so that rows of other seeds are of the old draws too.

    Args:
        rows: Rows of a sweep.
        trials: What is asked for now.
    """
    asked = {trial.id for trial in trials}
    inputs = {_mean_of(vars(trial)): trial.config_digest for trial in trials}
    places = {(_mean_of(vars(trial)), trial.seed, trial.subset_seed) for trial in trials}
    near = [row for row in rows if row["trial"] not in asked and _mean_of(row) in inputs]
    displaced = {_mean_of(row) for row in near if _place_of(row) in places}
    return [
        row
        for row in near
        if _mean_of(row) in displaced
        or row.get("config_digest") not in (None, inputs[_mean_of(row)])
    ]


def of_these_inputs(
    config: StudyConfig, rows: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Returns the rows of the run's data and of the recipe as it is now; older ones do not say.

    Args:
        config: The study.
        rows: Rows of a sweep.
    """
    marker = read_marker(RunLayout(config.run).marker("prepare"))
    if marker is None or "digest" not in marker:
        return list(rows)
    networks = config.sweep.networks or (config.train.network,)
    inputs = {network: retraining_inputs(config, network) for network in networks}
    return [
        row
        for row in rows
        if row.get("config_digest") in (None, inputs.get(row["network"], row.get("config_digest")))
    ]


def _mean_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what names the mean that a row counts in: those that differ in it are compared."""
    scored = ("score_network", "score_column", "score_run")
    # A random subset owes nothing to scores.
    series = (None,) if row["method"] == "random" else tuple(row.get(name) for name in scored)
    cell = (row[name] for name in ("network", "protocol", "method", "keep_fraction"))
    return (*cell, *series)


def _place_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    own = row.get("subset_seed")
    return _mean_of(row), row["seed"], row["seed"] if own is None else own
