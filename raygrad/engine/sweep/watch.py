"""What the driver hears of a sweep's trials: rows, failures, and that it is still alive."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune

from raygrad import stopping
from raygrad.engine.retries import Retries
from raygrad.engine.sweep.places import PlaceError, Places
from raygrad.engine.sweep.trial_process import state_url
from raygrad.engine.waiting import Waiting
from raygrad.progress import Progress
from raygrad.runs.result_rows import ResultRows, write_row
from raygrad.storage import files
from raygrad.training.trial import Trial, name_of

log = logging.getLogger("raygrad")

QUIET_S = 60.0
"""After so long without a line a sweep says that its trials run: one may take hours."""


class Watch(tune.Callback):
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
        self.places: Places | None = None
        """What is decided of trials that a GPU or node has failed, once the trials begin."""
        urls = {trial.id: state_url(folder, trial) for trial in trials}
        saved = files.states(urls.values())
        self._retries = {
            name: Retries(max_fruitless, url, saved.get(url)) for name, url in urls.items()
        }
        self._progress = Progress(
            "sweep", len(trials), "trials", work=sum(map(images_an_epoch, trials))
        )
        self._accuracies: dict[str, float] = defaultdict(float)
        self._num_ended = 0
        self._started_s: dict[str, float] = {}
        self._told_s = time.monotonic()
        self.failures: dict[str, tuple[int, str]] = {}
        """Attempts and reason of each trial that was given up."""

    def _of(self, trial: Any) -> Trial:
        """Returns the retraining that one of Tune's trials is."""
        return self._trials[trial.config["position"]]

    def goes_on(self, trial: Any) -> bool:
        """Called by Tune in the driver: tells whether a trial that failed is tried again."""
        error, name, fault = _error(trial), self._of(trial).id, _fault(trial)
        if self.places is not None and fault is not None:
            decided = self.places.goes_on(name, fault)
            if decided is not None:
                return decided
        return self._retries[name].goes_on([] if error is None else [error])

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune in the driver, again and again, also while no trial has room.

        Raises:
            IncompleteError: None had for too long.
            KeyboardInterrupt: The command was asked to stop, and Ray lost what said so.
        """
        stopping.go_on()
        running = [trial for trial in trials if trial.status == "RUNNING"]
        if running:
            self._waiting.over()
            self._tell_that_they_run(running)
            if self.places is not None:
                waiting = len(self._trials) - self._num_ended - len(running)
                self.places.look({self._of(trial).id for trial in running}, waiting)
        elif any(not trial.is_finished() for trial in trials):
            self._waiting.still()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune in the driver."""
        self._started_s[self._of(trial).id] = time.monotonic()

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

    def _tell_that_they_run(self, running: list[Any]) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < QUIET_S:
            return
        self._told_s = now_s
        since_s = min(self._started_s.get(self._of(trial).id, now_s) for trial in running)
        note = f"{len(running)} running, the longest for {now_s - since_s:.0f} s"
        self._progress.add(0, f"{self._num_ended} of {len(self._trials)} trials, {note}")

    def _note(self, ran: Trial, accuracy: float | None, trials: list[Any]) -> None:
        if accuracy is not None:
            self._accuracies[ran.method] = max(self._accuracies[ran.method], accuracy)
        best = ", ".join(f"{name} {best:.4f}" for name, best in self._accuracies.items())
        note = f"{self._running(trials)} running; best {best or 'unknown'}"
        self._told_s = time.monotonic()
        self._progress.add(1, note, images_an_epoch(ran))

    def _running(self, trials: list[Any]) -> int:
        """Returns how many trials run once the next one has the process of the one that ended."""
        self._num_ended += 1
        # The one that ended counts as running still: it stands for the one that takes its place.
        running = sum(trial.status == "RUNNING" for trial in trials)
        return min(running, len(self._trials) - self._num_ended)


def images_an_epoch(trial: Trial) -> float:
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


def _fault(trial: Any) -> PlaceError | None:
    """Returns what a GPU or node has failed a trial by, where one has."""
    error = _error(trial)
    cause = getattr(error, "cause", error)  # Ray's RayTaskError holds the task's own
    return cause if isinstance(cause, PlaceError) else None


def _reason(trial: Any) -> str:
    """Returns the line of a trial's error that names what went wrong."""
    if (fault := _fault(trial)) is not None:
        return str(fault)
    if trial.error_file is None:
        return "its process was lost"
    lines = [line.strip() for line in Path(trial.error_file).read_text().splitlines() if line]
    if isinstance(_error(trial), ray.exceptions.RayActorError):
        # A lost process is named first and its details follow; an exception comes after its stack.
        return next((line for line in lines if "died" in line), lines[-1])
    return lines[-1]
