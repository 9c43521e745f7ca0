"""Training with Ray Train: DDP workers around the training loop."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
from torch import nn

from raygrad.config import TrainConfig
from raygrad.data import storage
from raygrad.engine.relay import relayed
from raygrad.engine.session import fitting_workers
from raygrad.errors import RaygradError
from raygrad.progress import Progress
from raygrad.training.checkpoints import Checkpoint, from_bytes, save_checkpoint, to_bytes
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.models import build_network, num_parameters
from raygrad.training.study_data import StudyData

STATE_FILE = "state.pt"
MAX_WORKER_FAILURES = 3


def train(
    config: TrainConfig,
    inputs_digest: str,
    data: StudyData,
    folder: str,
    checkpoint_url: str,
    metrics_url: str,
) -> dict[str, Any]:
    """Trains a network with DDP and writes its best epoch's checkpoint and its metrics.

    Goes on from its last saved epoch when a worker or the driver died before.

    Args:
        config: The recipe.
        inputs_digest: Hash of the recipe and the data set; a training goes on from what one of
            the same inputs has saved, and from no other's.
        data: The data set in memory; it is put into Ray's object store once.
        folder: Where Ray Train keeps what it needs to go on, a URL.
        checkpoint_url: Where the best epoch's checkpoint goes.
        metrics_url: Where the metrics go.

    Returns:
        The metrics: history by epoch, best epoch, its validation and test accuracy, times.

    Raises:
        ResourceError: There is no CPU for a worker.
        RaygradError: Training failed more often than it is retried.
    """
    num_workers = fitting_workers(config.num_workers, "training workers")
    filesystem, path = storage.filesystem(folder)
    arguments = {"config": config, "data": ray.put(data), "checkpoint_url": checkpoint_url}
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config=arguments,
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers),
        run_config=ray.train.RunConfig(
            name=f"{inputs_digest[:16]}-{num_workers}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(
                max_failures=MAX_WORKER_FAILURES, controller_failure_limit=3
            ),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        with relayed(Progress("train", config.epochs, "epochs")) as board:
            arguments["board"] = board
            metrics = trainer.fit().return_value
    except ray.train.TrainingFailedError as error:
        raise RaygradError(f"training must finish, got {_first_cause(error)}") from error
    storage.write_bytes(metrics_url, json.dumps(metrics, indent=1).encode())
    return metrics


def _finish(
    config: TrainConfig,
    data: StudyData,
    network: nn.Module,
    loop: TrainingLoop,
    checkpoint_url: str,
    is_first: bool,
) -> dict[str, Any]:
    """Tests the best epoch's network once, saves it, and sums the training up."""
    tested = evaluate(network, data.normalize, data.examples("test"))
    out = loop.outcome
    if is_first:
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        save_checkpoint(
            checkpoint_url, Checkpoint(config.network, data.spec, data.normalize, weights)
        )
    return {
        "network": config.network,
        "num_parameters": num_parameters(network),
        "world_size": ray.train.get_context().get_world_size(),
        "num_train": len(data.train.labels),
        "num_val": len(data.val.labels),
        "num_test": len(data.test.labels),
        "best_epoch": out.best_epoch,
        "epochs": out.epoch,
        "steps": out.step,
        "val_accuracy": out.best_val_accuracy,
        "val_loss": out.best_val_loss,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "train_time_s": sum(row["epoch_time_s"] for row in out.history),
        "history": out.history,
    }


def _first_cause(error: BaseException) -> str:
    """Returns the last line of the innermost error's text, which names what went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _train_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    config: TrainConfig = arguments["config"]
    data: StudyData = ray.get(arguments["data"])
    board = arguments["board"]
    network = build_network(config.network, data.spec, config.seed)
    loop = TrainingLoop(
        network,
        config,
        data.normalize,
        data.examples("train"),
        data.examples("val"),
        order_seed=config.seed,
        ddp=ray.train.torch.prepare_model(network),
    )
    saved = ray.train.get_checkpoint()
    if saved is not None:
        with saved.as_directory() as folder:
            loop.load_state_dict(from_bytes(Path(folder, STATE_FILE).read_bytes()))
    is_first = ray.train.get_context().get_world_rank() == 0
    if is_first:
        board.post.remote(loop.outcome.epoch, "")
    saver = _Saver(config.save_interval_s, is_first)

    def after_epoch(loop: TrainingLoop) -> None:
        if is_first:
            accuracy = loop.outcome.history[-1]["val_accuracy"]
            board.post.remote(1, f"validation accuracy {accuracy:.4f}")
        saver.after_epoch(loop)

    loop.run(after_epoch)
    return _finish(config, data, network, loop, arguments["checkpoint_url"], is_first)


class _Saver:
    """Reports to Ray Train, with a checkpoint, when the last report is some seconds old.

    A report waits for the controller's next poll, about 2 s: after every epoch it would cost small
    networks more than their training.
    """

    def __init__(self, interval_s: float, is_first: bool) -> None:
        self._interval_s, self._is_first = interval_s, is_first
        self._saved_s = time.monotonic()

    def after_epoch(self, loop: TrainingLoop) -> None:
        """Saves if it is time; every rank takes the first one's decision."""
        due = time.monotonic() - self._saved_s >= self._interval_s
        if not ray.train.collective.broadcast_from_rank_zero(due):
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if self._is_first:
                Path(folder, STATE_FILE).write_bytes(to_bytes(loop.state_dict()))
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(loop.outcome.history[-1], checkpoint=checkpoint)
        self._saved_s = time.monotonic()
