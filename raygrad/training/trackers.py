"""Tells TensorBoard, MLflow or Weights & Biases of a training's epochs as they end."""

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError

log = logging.getLogger("raygrad")

PROJECT = "raygrad"
"""The experiment of MLflow, and the project of Weights & Biases, that trainings belong to."""

_MODULES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_DIGITS = 16  # of a training's digest: its name to the trackers


class Tracker(Protocol):
    """One tracker's view of one training."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Tells of an epoch, counted from 1."""

    def close(self, failed: bool) -> None:
        """Ends the telling, of a training that failed or not; nothing told before is lost."""


class TensorBoard:
    """Event files, for `tensorboard --logdir`, by the writer that Ray's own loggers use.

    Args:
        folder: Where they go, a path or an s3:// URL.
        epoch: Epochs that are done; a restarted training tells the later ones again.
    """

    def __init__(self, folder: str, epoch: int) -> None:
        writer = _module("tensorboard").SummaryWriter
        self._writer = writer(folder, purge_step=epoch + 1 if epoch else None, flush_secs=10)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Writes a scalar each; see `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """Closes the file, which has no place for how it ended; see `Tracker`."""
        self._writer.close()


class MLflow:
    """A run of the experiment `PROJECT`, on the server that MLFLOW_TRACKING_URI names.

    Args:
        digest: Names the training: a restarted one goes on with its run.
        config: Written as the run's parameters.
    """

    def __init__(self, digest: str, config: TrainConfig) -> None:
        mlflow = _module("mlflow")
        self._client = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        runs = self._client.search_runs([experiment], f"tags.`raygrad.training` = '{digest}'")
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"raygrad.training": digest}
        created = self._client.create_run(experiment, tags=tags, run_name=digest[:_DIGITS])
        self._run = created.info.run_id
        for name, value in asdict(config).items():
            self._client.log_param(self._run, name, value)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Logs a metric each; see `Tracker`."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def close(self, failed: bool) -> None:
        """Marks the run as finished or failed; see `Tracker`."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


class WeightsAndBiases:
    """A run of the project `PROJECT`; WANDB_MODE, WANDB_API_KEY and so on are the user's.

    Args:
        digest: Names the training: a restarted one goes on with its run.
        config: Written as the run's config.
    """

    def __init__(self, digest: str, config: TrainConfig) -> None:
        wandb = _module("wandb")
        name = digest[:_DIGITS]
        self._run = wandb.init(
            project=PROJECT, id=name, name=name, resume="allow", config=asdict(config)
        )

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Logs the epoch as a step; see `Tracker`."""
        self._run.log(dict(values), step=epoch)

    def close(self, failed: bool) -> None:
        """Ends the run, as crashed if it failed; see `Tracker`."""
        self._run.finish(exit_code=int(failed))


class Trackers:
    """All the trackers of a training, none of which can stop it.

    Args:
        config: `track` names them.
        digest: Names the training.
        folder: Where TensorBoard's files go.
        epoch: Epochs that are done, where a training goes on.
        warn: Is told of a tracker that fails; where it is, so that a person reads it.

    Raises:
        ConfigError: One that is asked for is not installed.
    """

    def __init__(
        self,
        config: TrainConfig,
        digest: str,
        folder: str,
        epoch: int = 0,
        warn: Callable[[str], object] = log.warning,
    ) -> None:
        check_installed(config.track)
        self._warn = warn
        makers = {
            "tensorboard": lambda: TensorBoard(folder, epoch),
            "mlflow": lambda: MLflow(digest, config),
            "wandb": lambda: WeightsAndBiases(digest, config),
        }
        self._trackers: dict[str, Tracker] = {}
        for name in config.track:
            self._trying(name, lambda name=name: self._trackers.update({name: makers[name]()}))

    def log(self, row: Mapping[str, Any]) -> None:
        """Tells of an epoch.

        Args:
            row: A row of a training's history.
        """
        values = {name: value for name, value in row.items() if name != "epoch"}
        for name, tracker in list(self._trackers.items()):
            self._trying(name, lambda tracker=tracker: tracker.log(row["epoch"], values))

    def close(self, failed: bool = False) -> None:
        """Ends the telling, of a training that failed or not."""
        for name, tracker in list(self._trackers.items()):
            self._trying(name, lambda tracker=tracker: tracker.close(failed))

    def _trying(self, name: str, call: Any) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001
            # A server that is away costs its curves, and not the hours of training.
            self._trackers.pop(name, None)
            self._warn(f"{name} is told no more: {error}")


def check_installed(names: Sequence[str]) -> None:
    """Checks before training that its trackers can be imported.

    Raises:
        ConfigError: One cannot.
    """
    for name in names:
        if importlib.util.find_spec(_MODULES[name]) is None:
            raise ConfigError(
                f"track {name} needs the package {_MODULES[name]}, got an environment without it. "
                f"pip install {_MODULES[name]}, on every node, or leave it out of track."
            )


def _module(name: str) -> Any:
    return importlib.import_module(_MODULES[name])
