"""What happens inside a trial's process: read the subset, train, test once, write the row."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray import tune
from ray.util import metrics

from raygrad.config import TrainConfig
from raygrad.engine.notice import Notice
from raygrad.engine.relay import told_to
from raygrad.engine.sweep.group import run_in_group
from raygrad.engine.sweep.packing import TrialNeeds
from raygrad.engine.sweep.places import kept_from_others, of_this_place
from raygrad.errors import DataError
from raygrad.runs.reject_table import write_rejects
from raygrad.runs.result_rows import read_row, write_row
from raygrad.runs.subsets import read_subset
from raygrad.storage import files
from raygrad.training import ranks
from raygrad.training.loop import TrainingLoop
from raygrad.training.retraining import positions_of, retrain
from raygrad.training.saved_state import StateFile
from raygrad.training.study_data import StudyData, StudySource
from raygrad.training.trial import Trial, name_of

STATES = "states"
"""The folder, in a sweep's own, of the saved states of trials under way."""


@dataclass(frozen=True)
class SharedData:
    """The data set as all trials of a node share it: what is large lies in Ray's object store.

    Keys are an Arrow array instead of Python strings, which each process would have to build.
    """

    data: StudyData | StudySource
    """Images and labels, without keys; or where they come from, if they do not fit in memory."""
    keys: pa.Array | None
    """The keys of the training split, in the order of its images; those of mapped images are with
    them."""

    @staticmethod
    def put(data: StudyData | StudySource) -> "ray.ObjectRef":
        """Puts a data set into the object store, once for all trials."""
        if isinstance(data, StudySource):
            return ray.put(SharedData(data, None))
        splits = {
            name: dataclasses.replace(getattr(data, name), keys=())
            for name in ("train", "val", "test")
        }
        shared = dataclasses.replace(data, **splits)
        return ray.put(SharedData(shared, pa.array(data.train.keys, pa.large_string())))

    def open(self) -> tuple[StudyData, pa.Array]:
        """Returns the data set and the keys of its training split."""
        data = self.data if isinstance(self.data, StudyData) else self.data.open()
        keys = self.keys
        return data, pa.array(data.train.keys, pa.large_string()) if keys is None else keys


@dataclass(frozen=True)
class TrialWork:
    """All that the trials of a sweep have in common, and which they are; paths, not subsets."""

    recipe: TrainConfig
    """How each is trained."""
    shared: "ray.ObjectRef"
    """The `SharedData`."""
    trials: tuple[tuple[Trial, str], ...]
    """Each trial with its subset's file."""
    needs: TrialNeeds
    """What each takes."""
    folder: str
    """The sweep's folder, where rows go."""
    save_interval_s: float
    """A killed trial loses at most about this many seconds."""
    reports_epochs: bool
    """Whether Tune is told of every epoch: to end trials early, or for TensorBoard."""
    board: Any
    """The driver's `PlaceBoard`, which hears of warnings and of places that fail."""


def run_trial(choice: dict[str, int], work: TrialWork) -> None:
    """The function that Tune runs: does one trial, unless its row is there.

    The row is there when the process or the driver was lost between writing and reporting it.
    """
    trial, subset_url = work.trials[choice["position"]]
    row = read_row(work.folder, trial.id)
    if row is None or row["ended_early"]:
        with kept_from_others(work.board, trial.id, name_of(trial)):
            row = run_in_group(
                work.needs, _train_rank, trial, subset_url, work, before=_decode_on_this_node
            )
        write_row(work.folder, row)
        _count(row)
    files.remove(state_url(work.folder, trial))
    # A scheduler looks at the validation accuracy of every report, the last one too.
    measured = {
        "epoch": row["epochs"] + 1,
        "test_accuracy": row["test_accuracy"],
        "best_val_accuracy": row["val_accuracy"],
    }
    tune.report({**measured, "row": json.dumps(row)})


def state_url(folder: str, trial: Trial) -> str:
    """Returns where the state of a trial under way is kept, in a sweep's folder."""
    return files.join(folder, STATES, f"{trial.id}.state")


def _count(row: dict[str, Any]) -> None:
    """Tells Ray's metrics of a trial that is finished."""
    metrics.Counter("raygrad_trials_finished", "Retrainings of sweeps finished.").inc(1)
    seen = row.get("examples_seen") or 0
    if seen:
        metrics.Counter("raygrad_images_retrained", "Images that retrainings saw.").inc(seen)


def _decode_on_this_node(trial: Trial, subset_url: str, work: TrialWork) -> None:
    """Has the data set that does not fit in memory on this node's disk; mapped, it is kept."""
    shared: SharedData = ray.get(work.shared)
    if isinstance(shared.data, StudySource):
        with told_to(work.board, name_of(trial)), of_this_place():
            shared.data.open()


def _train_rank(trial: Trial, subset_url: str, work: TrialWork) -> dict[str, Any]:
    with told_to(work.board, name_of(trial)), of_this_place():
        return _trained(trial, subset_url, work)


def _trained(trial: Trial, subset_url: str, work: TrialWork) -> dict[str, Any]:
    shared: SharedData = ray.get(work.shared)
    data, keys = shared.open()
    if isinstance(shared.data, StudySource) and ranks.rank() == 0:
        _write_rejects_once(work.folder, data)
    subset, _ = read_subset(subset_url)
    if subset.num_rows != trial.budget:
        raise DataError(
            f"a subset must not change while a sweep runs, got {subset.num_rows} examples instead "
            f"of {trial.budget} in {subset_url}. Run again."
        )
    kept = positions_of(subset["key"].combine_chunks(), keys)
    device = "cuda" if work.needs.gpus_each else "cpu"
    reports = work.reports_epochs and tune.get_context().get_trial_id() is not None
    with Notice() as notice:
        return retrain(
            trial,
            kept,
            work.recipe,
            data,
            device=device,
            after_epoch=_report_epoch if reports else None,
            state=StateFile(state_url(work.folder, trial), work.save_interval_s, notice),
        )


_told: set[str] = set()
"""The sweeps whose reject table this process has written."""


def _write_rejects_once(folder: str, data: StudyData) -> None:
    """Writes what the driver, which may not hold the images, cannot know."""
    if folder not in _told:
        write_rejects(folder, data.rejects.to_pylist())
        _told.add(folder)


def _report_epoch(loop: TrainingLoop) -> None:
    """Tells Tune of an epoch; a trial that it ends does not return from here."""
    out = loop.outcome
    if not loop.finished:
        spent_s = sum(row["epoch_time_s"] for row in out.history)
        best = {"best_val_accuracy": out.best_val_accuracy, "loop_time_s": spent_s}
        tune.report({**out.history[-1], **best})
