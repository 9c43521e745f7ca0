"""Training with Ray Train: DDP workers around the training loop."""

import functools
import json
import logging
import os
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from torch import nn

from raygrad.config import DEFAULT_WAIT_S, TrainConfig
from raygrad.config.nodes import selector_of
from raygrad.engine import ray_private_train
from raygrad.engine.decoding import decode_before
from raygrad.engine.nodes import offer_of
from raygrad.engine.notice import Notice
from raygrad.engine.placement import Placement, place_training
from raygrad.engine.relay import relayed, told_to
from raygrad.engine.retries import Retries, final_error
from raygrad.engine.train.telling import Telling, warner
from raygrad.engine.waiting import Need, Waiting, wait_for, watched
from raygrad.engine.workers.starting import load_for_training
from raygrad.errors import IncompleteError, RaygradError
from raygrad.progress import Progress
from raygrad.runs.reject_table import settle_rejects
from raygrad.scoring.numerics import computed_by, numerics
from raygrad.storage import files
from raygrad.training import ranks
from raygrad.training.arithmetic import tell_arithmetic
from raygrad.training.checkpoints import Checkpoint, save_checkpoint
from raygrad.training.loop import TrainingLoop, device_of, evaluate
from raygrad.training.measurements import Measurements
from raygrad.training.models import num_parameters
from raygrad.training.saved_state import StateFile
from raygrad.training.starting import initial_network
from raygrad.training.study_data import SPLITS, StudyData, StudySource
from raygrad.training.trackers import check_installed

log = logging.getLogger("raygrad")

MAX_FRUITLESS = 3
"""So many attempts in a row may end without having saved anything new before the next is the last;
a node that was lost does not count."""
# A node that is lost still counts as there for some seconds: an elastic group that is placed on it
# shall not wait the minute that Ray Train gives it by default, but be tried again.
_ELASTIC_START_TIMEOUT_S = 15
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_LONGEST_S = 10 * 365 * 24 * 3600.0
"""What stands for ever, in Ray's numbers."""
_ABORT_S = 5
"""How long workers may take to end where a training is stopped."""


@dataclass(frozen=True)
class TrainTask:
    """What is trained, and where what comes out of it goes."""

    config: TrainConfig
    """The recipe."""
    inputs_digest: str
    """Hash of the recipe and the data set; a training goes on from what one of the same inputs
    has saved, and from no other's."""
    folder: str
    """Where the training's saved state and Ray Train's own files are, a URL."""
    checkpoint_url: str
    """Where the best epoch's checkpoint goes."""
    metrics_url: str
    """Where the metrics go."""
    measured_url: str
    """The folder of probe.parquet, bound.parquet and dynamics.parquet."""

    @property
    def state_url(self) -> str:
        """Where the state to go on from is kept."""
        return files.join(self.folder, f"{self.inputs_digest[:16]}.state")


def _abort(trainer: Any) -> None:
    """Ends the workers, which would go on in a Ray that outlives the training."""
    if trainer.controller is None:
        return
    try:
        ray.get(trainer.controller.abort.remote(), timeout=_ABORT_S)
    except ray.exceptions.GetTimeoutError:
        ray.kill(trainer.controller)  # it waits for workers, and hears nothing
    except ray.exceptions.RayError:
        pass  # it ends while it is asked


def train(
    task: TrainTask, data: StudyData | StudySource, wait_s: float = DEFAULT_WAIT_S
) -> dict[str, Any]:
    """Trains a network with DDP and writes its best epoch's checkpoint, metrics and measurements.

    Goes on from its last saved state when a worker, a node or the driver died before, also with
    another number of workers.

    Args:
        task: What to train.
        data: The data set; in memory, it is put into Ray's object store once.
        wait_s: How long room for the workers is waited for, at the start and where nodes are lost.

    Returns:
        The metrics: history by epoch, best epoch, its validation and test accuracy, times.

    Raises:
        ConfigError: A tracker is not installed.
        ResourceError: There is no CPU for a worker, or no GPU where one is asked for.
        IncompleteError: There was no room for the workers in time, or storage was away for long;
            what is saved is kept.
        TooManyRejectsError: More images cannot be decoded than is accepted.
        RaygradError: Training fails again and again without getting on, or its recipe diverges.
    """
    config = task.config
    check_installed(config.track)
    placed = place_training(config, offer_of(config.nodes))
    scaling, need = _scaling(placed, config), _need(placed, config)
    log.info("%s", placed.line())
    load_for_training()
    nodes = wait_for("train", need, wait_s)
    if isinstance(data, StudySource) and not data.is_streamed:
        most = Need(placed.count, placed.each, placed.labels)
        decode_before("train", data, most, nodes, wait_s)
    tell_arithmetic("train", config.numerics, placed.device == "cuda")
    arguments = {"task": task, "data": ray.put(data), "use_gpu": placed.device == "cuda"}
    trainer = _trainer(task, scaling, arguments, wait_s)
    waiting = Waiting("train", need, wait_s)
    try:
        with (
            relayed("train", Progress("train", config.epochs, "epochs")) as board,
            watched(waiting, need, functools.partial(_abort, trainer)) as given_up,
        ):
            arguments["board"] = board
            metrics = trainer.fit().return_value
    except KeyboardInterrupt:
        _abort(trainer)
        raise
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        raise (given_up[0] if given_up else _named(error)) from error
    rejects = metrics.pop("rejects")
    num_used = sum(metrics[f"num_{split}"] for split in SPLITS)
    settle_rejects("train", task.measured_url, rejects, num_used, 1.0)  # the share is checked
    files.write_bytes(task.metrics_url, json.dumps(metrics, indent=1).encode())
    StateFile(task.state_url).remove()
    return metrics


def _trainer(
    task: TrainTask, scaling: ray.train.ScalingConfig, arguments: dict[str, Any], wait_s: float
) -> Any:
    """Returns Ray's trainer of a task, which hands `arguments` to every worker."""
    filesystem, path = files.filesystem(task.folder)
    saved = files.states([task.state_url]).get(task.state_url)
    retries = Retries(MAX_FRUITLESS, task.state_url, saved)
    labels = selector_of(task.config.nodes)
    return ray_private_train.trainer_class(retries.goes_on, labels)(
        _train_worker,
        train_loop_config=arguments,
        scaling_config=scaling,
        run_config=ray.train.RunConfig(
            # The state to go on from is ours, so each attempt is a run of its own to Ray.
            name=f"{task.inputs_digest[:16]}-{time.time_ns()}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=_failures(task.config, wait_s),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _failures(config: TrainConfig, wait_s: float) -> ray.train.FailureConfig:
    """Returns how often workers are started again, and how long nodes for them are waited for.

    How often is counted by `Retries`. Ray Train counts a group that found no room within its time
    as a failure of its own. A group of one size is given all the time there is, by the bound that
    ends the waiting; an elastic one, which is to be tried again with fewer workers, all the
    failures.
    """
    timeout_s = _ELASTIC_START_TIMEOUT_S if config.min_workers else min(wait_s + 60, _LONGEST_S)
    os.environ[_START_TIMEOUT] = str(timeout_s)
    return ray.train.FailureConfig(
        max_failures=-1,
        controller_failure_limit=-1 if config.min_workers else MAX_FRUITLESS,
    )


def _need(placed: Placement, config: TrainConfig) -> Need:
    """Returns what has to be free before a training can begin: room for the fewest workers."""
    fewest = min(config.min_workers, placed.count) or placed.count
    return Need(fewest, placed.each, placed.labels)


def _scaling(placed: Placement, config: TrainConfig) -> ray.train.ScalingConfig:
    """Returns how many workers there are and what each one has, as Ray Train is told."""
    least = min(config.min_workers, placed.count)
    return ray.train.ScalingConfig(
        num_workers=(least, placed.count) if least else placed.count,
        use_gpu=placed.device == "cuda",
        resources_per_worker=dict(placed.each),
        label_selector=placed.labels or None,
    )


def _named(error: BaseException) -> RaygradError:
    """Returns the error for the user: the workers' own where it is one of raygrad's."""
    errors = list(getattr(error, "worker_failures", {}).values())
    final = final_error(errors)
    if final is not None:
        return final
    away = next((one for one in errors if isinstance(one, IncompleteError)), None)
    # Of workers' errors Ray's own text holds pieces, cut anywhere.
    return away or RaygradError(f"training must finish, got {_cause(next(iter(errors), error))}")


def _cause(error: BaseException) -> str:
    """Returns the last line of the innermost error's text, which names what went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _train_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs in each worker: builds, goes on from what is saved, trains, tests once.

    An error of one rank is raised, and never returned: Ray Train then ends the others, which wait
    for it, at once, and `Retries` tells whether all of them begin again.
    """
    with told_to(arguments["board"]):
        return _trained(arguments)


def _trained(arguments: dict[str, Any]) -> dict[str, Any]:
    task: TrainTask = arguments["task"]
    config = task.config
    shared: StudyData | StudySource = ray.get(arguments["data"])
    data = shared if isinstance(shared, StudyData) else shared.open()
    if isinstance(shared, StudySource):
        # Nodes that were known had it decoded before, see `decode_before`. One that joins later, as
        # to an elastic group, decodes here: torch's own collectives would time out meanwhile.
        ray.train.collective.barrier()
    torch.set_num_threads(config.cpus_per_worker)
    device = ray.train.torch.get_device() if arguments["use_gpu"] else torch.device("cpu")
    with numerics(config.numerics, device):
        return _train_on(device, arguments["board"], task, data)


def _train_on(device: torch.device, board: Any, task: TrainTask, data: StudyData) -> dict[str, Any]:
    """Trains on this worker's device, from what is saved or from the start."""
    config = task.config
    network = initial_network(config.network, config, data.spec, config.seed).to(device)
    train = data.examples("train", loaders=config.loaders).near(device)
    measurements = Measurements(config, network, train, data.normalize)
    loop = TrainingLoop(
        network,
        config,
        data.normalize,
        train,
        data.examples("val", loaders=config.loaders),
        order_seed=config.seed,
        ddp=_wrapped(network, config),
        observers=measurements.observers,
    )
    notice = Notice()
    state = StateFile(task.state_url, config.save_interval_s, notice, warner(board, loop))
    saved = state.read()
    if saved is not None:
        loop.load_state_dict(saved)
    folder = files.join(task.measured_url, "tensorboard")
    telling = Telling(loop, board, config, task.inputs_digest, folder)

    def after_epoch(loop: TrainingLoop) -> None:
        telling.after_epoch(loop, len(train))
        if loop.outcome.epoch in config.keep_epochs and ranks.rank() == 0:
            # Before the state: a training that goes on after this epoch does not come by again.
            url = files.join(task.measured_url, f"epoch-{loop.outcome.epoch}.pt")
            save_checkpoint(url, _checkpoint(config, data, network))
        state.save_if_due(loop)

    def after_step(loop: TrainingLoop) -> None:
        telling.after_step(loop)
        state.save_if_due(loop)

    with telling, notice, state:
        loop.run(after_epoch, after_step)
    is_first = ranks.rank() == 0
    if is_first:
        measurements.write(task.measured_url, data.train.keys)
    return _finish(task, data, network, loop, is_first)


def _wrapped(network: nn.Module, config: TrainConfig) -> nn.Module:
    """Returns what is trained: the network for this rank's device, in DDP, compiled."""
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    wrapped: nn.Module = ray.train.torch.prepare_model(network, move_to_device=False)
    if config.compile:
        wrapped.compile()  # in place: the module stays what it was to all others
    return wrapped


def _checkpoint(config: TrainConfig, data: StudyData, network: nn.Module) -> Checkpoint:
    """Returns the network as it is, with all that is needed to use it."""
    weights = {n: t.cpu().contiguous() for n, t in network.state_dict().items()}
    by_what = computed_by(config.numerics, device_of(network))
    return Checkpoint(config.network, data.spec, data.normalize, weights, config.loss, by_what)


def _finish(
    task: TrainTask, data: StudyData, network: nn.Module, loop: TrainingLoop, is_first: bool
) -> dict[str, Any]:
    """Tests the best epoch's network once, saves it, and sums the training up."""
    config, out = task.config, loop.outcome
    tested = evaluate(network, data.normalize, data.examples("test", loaders=config.loaders))
    checkpoint = _checkpoint(config, data, network)
    if is_first:
        save_checkpoint(task.checkpoint_url, checkpoint)
    return {
        "network": config.network,
        "num_parameters": num_parameters(network),
        "computed_by": checkpoint.computed_by,
        "micro_batch": loop.micro_batch,
        "world_size": ranks.world_size(),
        "num_train": len(data.train.labels),
        "num_val": len(data.val.labels),
        "num_test": len(data.test.labels),
        "rejected": data.rejects.num_rows,
        "rejects": data.rejects.to_pylist(),
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
