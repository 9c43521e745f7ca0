"""Retraining sweeps with Ray Tune: one trial a subset, packed by what each takes."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import fs
from ray import tune

from raygrad.config import DEFAULT_WAIT_S, SweepConfig, TrainConfig
from raygrad.engine import ray_private
from raygrad.engine.decoding import decode_before
from raygrad.engine.nodes import held_by, offer_of
from raygrad.engine.placement import Placement, place_sweep, trial_needs
from raygrad.engine.relay import relayed
from raygrad.engine.session import ensure_ray
from raygrad.engine.sweep.places import PlaceBoard, Places, has_others
from raygrad.engine.sweep.trial_process import (
    STATES,
    SharedData,
    TrialWork,
    run_trial,
)
from raygrad.engine.sweep.watch import Watch, images_an_epoch
from raygrad.engine.waiting import Need, Waiting, wait_for
from raygrad.engine.workers.starting import load_for_training
from raygrad.errors import IncompleteError
from raygrad.runs.layout import RunLayout
from raygrad.runs.reject_table import settle_rejects, tell_rejects
from raygrad.runs.result_rows import ResultRows, write_failed
from raygrad.storage import files
from raygrad.training.arithmetic import tell_arithmetic
from raygrad.training.study_data import StudyData, StudySource
from raygrad.training.trial import Trial, name_of

log = logging.getLogger("raygrad")

PlannedTrial = tuple[Trial, str]
"""A trial with the file of its subset."""

_TUNE_ENVIRONMENT = {
    # Result files, params and TensorBoard events of every trial: rows are kept by raygrad itself.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Snapshots for Tuner.restore, which grow with the number of trials: rows serve instead.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # Failed trials are listed with their reason, not printed with their stack.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Tune would end an interrupted sweep as if it were over, its other trials never run.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
}
"""Tune would send these of the driver's environment to its trials, in a runtime environment that
Ray writes to its logs and shows in its dashboard. Nodes have credentials of their own."""


def sweep_placement(config: SweepConfig) -> Placement:
    """Returns what is decided for a sweep on the cluster that there is.

    Raises:
        ResourceError: The cluster cannot hold one trial.
    """
    return place_sweep(config, offer_of(config.nodes))


def missing_trials(
    config: SweepConfig, trials: Sequence[PlannedTrial], rows: ResultRows
) -> list[PlannedTrial]:
    """Returns the trials that are not finished.

    One that was ended early counts as finished only as long as trials are ended early.
    """
    done = {
        name
        for name, row in rows.rows.items()
        if config.early_termination != "no" or not row["ended_early"]
    }
    return [planned for planned in trials if planned[0].id not in done]


def sweep(
    config: SweepConfig,
    recipe: TrainConfig,
    trials: Sequence[PlannedTrial],
    layout: RunLayout,
    load_data: Callable[[], StudyData | StudySource],
    wait_s: float = DEFAULT_WAIT_S,
) -> pa.Table:
    """Retrains a network on every subset and returns the table of results.

    Each trial writes its own row when it ends, and the table gains it at once, so that finished
    trials are never run again; Ray is started and the data set loaded only when a trial is missing.

    Args:
        config: What a trial takes, how many at a time, how often a failed one is tried again.
        recipe: How each is trained.
        trials: Each trial with the file of its subset.
        layout: The run folder.
        load_data: Returns the data set; every trial of a node shares one copy.
        wait_s: How long room for a trial is waited for while none runs.

    Returns:
        One row for every finished trial of the run folder.

    Raises:
        ResourceError: The cluster cannot hold one trial.
        IncompleteError: A trial failed more often than it is tried again, or there was no room for
            one in time.
    """
    rows = ResultRows(layout.sweep, layout.results)
    rows.tell("score_seed", {trial.id: trial.score_seed for trial, _ in trials})
    todo = missing_trials(config, trials, rows)
    if len(todo) < len(trials):
        log.info("sweep: %d of %d trials are finished", len(trials) - len(todo), len(trials))
    if todo:
        ensure_ray()
        load_for_training()
        placed = sweep_placement(config)
        tell_arithmetic("sweep", recipe.numerics, placed.device == "cuda")
        log.info("%s", placed.line(min(placed.count, len(todo))))
        need = Need(placed.workers, placed.each, placed.labels)
        nodes = wait_for("sweep", need, wait_s)
        waiting = Waiting("sweep", need, wait_s)
        watch = Watch(rows, layout.sweep, [t for t, _ in todo], waiting, config.max_failures)
        data = load_data()
        if isinstance(data, StudyData):
            settle_rejects("sweep", layout.sweep, data.rejects.to_pylist(), data.num_used, 1.0)
        elif not data.is_streamed:
            workers = min(placed.count, len(todo)) * placed.workers
            most = Need(workers, placed.each, placed.labels)
            decode_before("sweep", data, most, nodes, wait_s)
        with _boarded(placed, watch) as board:
            _run_trials(config, recipe, data, todo, layout, placed, watch, board)
        if isinstance(data, StudySource):
            tell_rejects("sweep", layout.sweep, sum(data.num_examples.values()))
        left = missing_trials(config, todo, rows)
        _raise_for_failed(layout, left, len(trials), rows, watch.failures)
        files.remove(files.join(layout.sweep, STATES))
    return rows.write()


@contextlib.contextmanager
def _boarded(placed: Placement, watch: Watch) -> Iterator[Any]:
    """Gives the board of a sweep's trials; where places fail them, the watch decides by it."""
    holding = [node for node in placed.offer.nodes if held_by(node, placed.each)]
    others = has_others(holding, placed.each)
    with relayed("sweep", None, PlaceBoard, others) as board:
        watch.places = Places(board, placed.count, others)
        yield board


def _run_trials(
    config: SweepConfig,
    recipe: TrainConfig,
    data: StudyData | StudySource,
    todo: Sequence[PlannedTrial],
    layout: RunLayout,
    placed: Placement,
    watch: Watch,
    board: Any,
) -> None:
    _quieten_tune()
    needs = trial_needs(placed)
    selectors = [placed.labels] * needs.num_workers if placed.labels else None
    reports_epochs = config.early_termination != "no" or config.tensorboard
    work = TrialWork(
        recipe,
        SharedData.put(data),
        tuple(todo),
        needs,
        layout.sweep,
        config.save_interval_s,
        reports_epochs,
        board,
    )
    callbacks = [watch, *([tune.logger.TBXLoggerCallback()] if config.tensorboard else [])]
    folder = files.join(layout.sweep, "tune")
    filesystem, path = files.filesystem(folder)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, work=work),
            tune.PlacementGroupFactory(
                [needs.bundle] * needs.num_workers, bundle_label_selector=selectors
            ),
        ),
        # The longest first, so that no long one is left running alone at the end.
        param_space={"position": tune.grid_search(_longest_first(todo))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=placed.count,
            reuse_actors=True,
            scheduler=_scheduler(config, recipe),
        ),
        run_config=tune.RunConfig(
            name=f"{time.time_ns()}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=-1),
            callbacks=callbacks,
            verbose=0,
        ),
    )
    with (
        ray_private.trials_recover_by(watch.goes_on),
        ray_private.lost_processes_fail_their_trials(),
    ):
        tuner.fit()
    if not config.tensorboard:
        _remove(filesystem, path)


def _quieten_tune() -> None:
    """Has Tune write, send and print nothing that raygrad does itself."""
    os.environ.update(_TUNE_ENVIRONMENT)
    ray_private.keep_from_trials(_CREDENTIALS)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _longest_first(todo: Sequence[PlannedTrial]) -> list[int]:
    return sorted(range(len(todo)), key=lambda at: -images_an_epoch(todo[at][0]))


def _scheduler(config: SweepConfig, recipe: TrainConfig) -> Any:
    if config.early_termination == "no":
        return None
    return tune.schedulers.ASHAScheduler(
        time_attr="epoch",  # Tune's own count begins anew where a trial goes on
        metric="best_val_accuracy",
        mode="max",
        max_t=recipe.epochs + 1,  # the last report is the row, after the last epoch
        grace_period=max(1, recipe.epochs // 10),
        reduction_factor=2,  # of the trials that reach a rung the better half goes on
    )


def _remove(filesystem: fs.FileSystem, path: str) -> None:
    """Removes Tune's own files; what a trial came to is in its row."""
    if filesystem.get_file_info(path).type == fs.FileType.Directory:
        filesystem.delete_dir(path)


def _raise_for_failed(
    layout: RunLayout,
    left: Sequence[PlannedTrial],
    num_trials: int,
    rows: ResultRows,
    failures: dict[str, tuple[int, str]],
) -> None:
    failed = []
    for trial, _ in left:
        attempts, reason = failures.get(trial.id, (0, "it was not run"))
        listed = {"trial": trial.id, "attempts": attempts, "reason": reason}
        names = ("network", "method", "keep_fraction", "seed", "score_seed", "protocol")
        failed.append({**listed, **{name: getattr(trial, name) for name in names}})
    url = write_failed(layout.sweep, failed)
    if failed:
        rows.write()
        texts = {trial.id: name_of(trial) for trial, _ in left}
        raise IncompleteError(
            f"every trial must finish, got {len(failed)} of {num_trials} that failed: "
            + "; ".join(f"{texts[row['trial']]}: {row['reason']}" for row in failed[:5])
            + f". All are listed in {url}. Run again; finished trials are kept."
        )
