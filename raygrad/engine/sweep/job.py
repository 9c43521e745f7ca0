"""Retraining sweeps with Ray Tune: one trial a subset, packed by what each takes."""

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import ray
from pyarrow import fs
from ray import tune

from raygrad import stopping
from raygrad.config import DEFAULT_WAIT_S, SweepConfig, TrainConfig
from raygrad.engine import ray_private
from raygrad.engine.decoding import decode_before
from raygrad.engine.nodes import offer_of
from raygrad.engine.placement import Placement, place_sweep, trial_needs
from raygrad.engine.retries import Retries
from raygrad.engine.session import ensure_ray
from raygrad.engine.sweep.trial_process import (
    STATES,
    SharedData,
    TrialWork,
    run_trial,
    state_url,
)
from raygrad.engine.waiting import Need, Waiting, wait_for
from raygrad.engine.workers.starting import load_for_training
from raygrad.errors import IncompleteError
from raygrad.progress import Progress
from raygrad.runs.layout import RunLayout
from raygrad.runs.reject_table import settle_rejects, tell_rejects
from raygrad.runs.result_rows import ResultRows, write_failed, write_row
from raygrad.storage import files
from raygrad.training.arithmetic import tell_arithmetic
from raygrad.training.study_data import StudyData, StudySource
from raygrad.training.trial import Trial

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
        watch = _Watch(rows, layout.sweep, [t for t, _ in todo], waiting, config.max_failures)
        data = load_data()
        if isinstance(data, StudyData):
            settle_rejects("sweep", layout.sweep, data.rejects.to_pylist(), data.num_used, 1.0)
        elif not data.is_streamed:
            workers = min(placed.count, len(todo)) * placed.workers
            most = Need(workers, placed.each, placed.labels)
            decode_before("sweep", data, most, nodes, wait_s)
        _run_trials(config, recipe, data, todo, layout, placed, watch)
        if isinstance(data, StudySource):
            tell_rejects("sweep", layout.sweep, sum(data.num_examples.values()))
        _raise_for_failed(layout, todo, trials, rows, watch.failures)
        files.remove(files.join(layout.sweep, STATES))
    return rows.write()


class _Watch(tune.Callback):
    """Takes rows, failures and progress as Tune's driver hears of them."""

    def __init__(
        self,
        rows: ResultRows,
        folder: str,
        trials: Sequence[Trial],
        waiting: Waiting,
        max_fruitless: int,
    ) -> None:
        self._rows, self._folder, self._trials = rows, folder, trials
        self._waiting = waiting
        urls = {trial.id: state_url(folder, trial) for trial in trials}
        saved = files.states(urls.values())
        self._retries = {
            name: Retries(max_fruitless, url, saved.get(url)) for name, url in urls.items()
        }
        self._progress = Progress(
            "sweep", len(trials), "trials", work=sum(map(_images_an_epoch, trials))
        )
        self._accuracies: dict[str, float] = defaultdict(float)
        self._num_ended = 0
        self.failures: dict[str, tuple[int, str]] = {}
        """Attempts and reason of each trial that was given up."""

    def _of(self, trial: Any) -> Trial:
        """Returns the retraining that one of Tune's trials is."""
        return self._trials[trial.config["position"]]

    def goes_on(self, trial: Any) -> bool:
        """Called by Tune in the driver: tells whether a trial that failed is tried again."""
        error = _error(trial)
        return self._retries[self._of(trial).id].goes_on([] if error is None else [error])

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune in the driver, again and again, also while no trial has room.

        Raises:
            IncompleteError: None had for too long.
            KeyboardInterrupt: The command was asked to stop, and Ray lost what said so.
        """
        stopping.go_on()
        if any(trial.status == "RUNNING" for trial in trials):
            self._waiting.over()
        elif any(not trial.is_finished() for trial in trials):
            self._waiting.still()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune in the driver."""
        ran = self._of(trial)
        result = trial.last_result
        if "row" in result:
            row = json.loads(result["row"])
        else:
            row = _ended_early(ran, result)
            write_row(self._folder, row)
            files.remove(state_url(self._folder, ran))
        self._rows.add(row)
        self._note(ran, row["test_accuracy"], trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune in the driver, when a trial is not tried again."""
        ran = self._of(trial)
        self._num_ended += 1
        self.failures[ran.id] = (trial.num_failures, _reason(trial))
        log.warning("sweep: %s failed: %s", name_of(ran), self.failures[ran.id][1])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune in the driver, when a failed trial is tried again."""
        ran = self._of(trial)
        log.warning("sweep: %s failed, is tried again: %s", name_of(ran), _reason(trial))

    def _note(self, ran: Trial, accuracy: float | None, trials: list[Any]) -> None:
        if accuracy is not None:
            self._accuracies[ran.method] = max(self._accuracies[ran.method], accuracy)
        best = ", ".join(f"{name} {best:.4f}" for name, best in self._accuracies.items())
        note = f"{self._running(trials)} running; best {best or 'unknown'}"
        self._progress.add(1, note, _images_an_epoch(ran))

    def _running(self, trials: list[Any]) -> int:
        """Returns how many trials run once the next one has the process of the one that ended."""
        self._num_ended += 1
        # The one that ended counts as running still: it stands for the one that takes its place.
        running = sum(trial.status == "RUNNING" for trial in trials)
        return min(running, len(self._trials) - self._num_ended)


def name_of(trial: Trial) -> str:
    """Returns a trial's name for people."""
    scored = "" if trial.score_seed is None else f" scored from seed {trial.score_seed}"
    return (
        f"{trial.network} {trial.method} {trial.keep_fraction:g} seed {trial.seed}{scored} "
        f"{trial.protocol}"
    )


def _images_an_epoch(trial: Trial) -> float:
    """Returns how many images a trial trains on, over the epochs of its protocol."""
    return trial.budget if trial.protocol == "equal_epochs" else trial.budget / trial.keep_fraction


def _ended_early(trial: Trial, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a trial that the scheduler ended: validated, never tested."""
    return {
        "trial": trial.id,
        **{name: getattr(trial, name) for name in trial.__dataclass_fields__},
        "subset_seed": trial.subset_seed,
        "init_seed": trial.derived_seed("init"),
        "order_seed": trial.derived_seed("order"),
        "test_accuracy": None,
        "val_accuracy": result.get("best_val_accuracy"),
        "epochs": result.get("epoch"),
        "train_time_s": result.get("loop_time_s"),
        "loop_time_s": result.get("loop_time_s"),
        "ended_early": True,
    }


def _error(trial: Any) -> BaseException | None:
    """Returns what a trial failed by; None where Tune was told of nothing.

    From Tune's own file: `get_pickled_error` looks where trials are kept, to which the file is
    copied only later.
    """
    if trial.pickled_error_file is None or not Path(trial.pickled_error_file).exists():
        return None
    error = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return cast("BaseException", error)


def _reason(trial: Any) -> str:
    """Returns the line of a trial's error that names what went wrong."""
    if trial.error_file is None:
        return "its process was lost"
    lines = [line.strip() for line in Path(trial.error_file).read_text().splitlines() if line]
    if isinstance(_error(trial), ray.exceptions.RayActorError):
        # A lost process is named first and its details follow; an exception comes after its stack.
        return next((line for line in lines if "died" in line), lines[-1])
    return lines[-1]


def _run_trials(
    config: SweepConfig,
    recipe: TrainConfig,
    data: StudyData | StudySource,
    todo: Sequence[PlannedTrial],
    layout: RunLayout,
    placed: Placement,
    watch: _Watch,
) -> None:
    os.environ.update(_TUNE_ENVIRONMENT)
    ray_private.keep_from_trials(_CREDENTIALS)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
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
    )
    callbacks: list[Any] = [watch]
    if config.tensorboard:
        callbacks.append(tune.logger.TBXLoggerCallback())
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
    with ray_private.trials_recover_by(watch.goes_on):
        tuner.fit()
    if not config.tensorboard:
        _remove(filesystem, path)


def _longest_first(todo: Sequence[PlannedTrial]) -> list[int]:
    return sorted(range(len(todo)), key=lambda at: -_images_an_epoch(todo[at][0]))


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
    todo: Sequence[PlannedTrial],
    trials: Sequence[PlannedTrial],
    rows: ResultRows,
    failures: dict[str, tuple[int, str]],
) -> None:
    failed = []
    for trial, _ in todo:
        if trial.id in rows.rows:
            continue
        attempts, reason = failures.get(trial.id, (0, "it was not run"))
        listed = {"trial": trial.id, "attempts": attempts, "reason": reason}
        names = ("network", "method", "keep_fraction", "seed", "score_seed", "protocol")
        failed.append({**listed, **{name: getattr(trial, name) for name in names}})
    url = write_failed(layout.sweep, failed)
    if failed:
        rows.write()
        texts = {trial.id: name_of(trial) for trial, _ in todo}
        raise IncompleteError(
            f"every trial must finish, got {len(failed)} of {len(trials)} that failed: "
            + "; ".join(f"{texts[row['trial']]}: {row['reason']}" for row in failed[:5])
            + f". All are listed in {url}. Run again; finished trials are kept."
        )
