"""The stage sweep: networks retrained on every subset."""

import contextlib
import functools
import logging
import time
from collections.abc import Sequence

import pyarrow as pa

from raygrad.config import StudyConfig
from raygrad.engine.sweep import job as sweep_engine
from raygrad.engine.sweep.trial_process import STATES
from raygrad.pipeline.data_ways import trial_data
from raygrad.pipeline.noticing import check_sweep_code, refuse_changed_shards
from raygrad.pipeline.planning import paybacks, predicted_wall_s
from raygrad.pipeline.redoing import forget_retrainings
from raygrad.pipeline.settling import settle_rows
from raygrad.pipeline.trial_grid import planned_trials
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.runs.reject_table import rejects_kept
from raygrad.runs.result_rows import ResultRows
from raygrad.storage import files
from raygrad.training.trial import Trial

log = logging.getLogger("raygrad")


def sweep(config: StudyConfig, own_subsets: Sequence[str] = (), redo: bool = False) -> pa.Table:
    """Retrains every network on every subset; returns the table of results.

    Subsets that are not drawn yet are drawn first. The end says how the time compares with the
    plan, where there is one, and after how many retrainings scoring has paid for itself.

    Args:
        config: The study.
        own_subsets: Files of subsets that were made elsewhere, to retrain on in place of those
            that the study draws.
        redo: Draw again subsets that were drawn otherwise, as of `select`, and retrain what was
            retrained by other code.
    """
    layout = RunLayout(config.run)
    refuse_changed_shards(config)
    networks = config.sweep.networks or (config.train.network,)
    if redo and forget_retrainings(layout, config):
        files.remove(files.join(layout.sweep, STATES))  # what is begun is of the old code too
    check_sweep_code(layout, (*networks, config.train.loss), start_from=config.train.start_from)
    trials = planned_trials(config, own_subsets, redo)
    rows = ResultRows(layout.sweep, layout.results)
    settle_rows(rows, [trial for trial, _ in trials])
    todo = sweep_engine.missing_trials(config.sweep, trials, rows)
    start_s = time.monotonic()
    load_data = functools.partial(trial_data, config)
    work = recorded(layout.journal, "sweep") if todo else contextlib.nullcontext()
    with work, rejects_kept(layout.sweep):
        results = sweep_engine.sweep(
            config.sweep, config.train, trials, layout, load_data, config.wait_s
        )
    if todo:
        _compare_with_plan(config, [trial for trial, _ in todo], time.monotonic() - start_s)
        if not own_subsets:
            _tell_paybacks(config)
    return results


def _compare_with_plan(config: StudyConfig, ran: list[Trial], wall_s: float) -> None:
    layout = RunLayout(config.run)
    rows = ResultRows(layout.sweep, layout.results)
    predicted = predicted_wall_s(config, ran, rows)
    if predicted is not None:
        log.info(
            "sweep: took %.0f s; the plan was %.0f s at most, %.0f s for the epochs that were run",
            wall_s,
            *predicted,
        )


def _tell_paybacks(config: StudyConfig) -> None:
    layout = RunLayout(config.run)
    rows = ResultRows(layout.sweep, layout.results)
    spent_s, found = paybacks(config, list(rows.rows.values()))
    for network, one in found:
        if one.retrainings is not None:
            log.info(
                "sweep: %s on %g by %s: training and scoring once (%.1f s) is paid after %d "
                "retrainings, each %.1f s shorter than on %s, which is as accurate",
                network,
                one.keep_fraction,
                one.method,
                spent_s,
                one.retrainings,
                one.saved_s,
                "all the data" if one.instead == 1 else f"{one.instead:g} at random",
            )
