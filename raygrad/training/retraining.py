"""One retraining on a subset, from fresh weights to a network tested once."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from raygrad.config import TrainConfig
from raygrad.errors import DataError
from raygrad.scoring.numerics import computed_by, numerics
from raygrad.training.data_order import DataOrder
from raygrad.training.loop import Outcome, TrainingLoop, evaluate
from raygrad.training.saved_state import StateFile
from raygrad.training.starting import initial_network
from raygrad.training.study_data import StudyData
from raygrad.training.trial import Trial
from raygrad.training.validating import MIN_VALIDATIONS


def _outcome(out: Outcome) -> dict[str, Any]:
    """Returns what a training came to, and what of its choice of an epoch is doubtful.

    The epoch chosen was the last that was looked at, or the first.
    """
    looks = [row["epoch"] for row in out.history if "val_accuracy" in row]
    return {
        "val_accuracy": out.best_val_accuracy,
        "val_loss": out.best_val_loss,
        "best_epoch": out.best_epoch,
        "num_validations": len(looks),
        "still_improving": out.best_epoch == looks[-1],
        "best_at_first": out.best_epoch == looks[0] and len(looks) > 1,
        "epochs": out.epoch,
        "steps": out.step,
        "examples_seen": out.examples_seen,
    }


def positions_of(keys: pa.Array, all_keys: pa.Array) -> NDArray[np.int64]:
    """Returns where each key of a subset stands among the keys of the training split, ascending.

    Args:
        keys: The subset's keys, in any order.
        all_keys: The training split's keys, in the order of its images.

    Raises:
        DataError: A key is not in the training split, or stands twice in the subset.
    """
    found = pc.index_in(keys, value_set=all_keys.cast(keys.type))
    if found.null_count:
        strange = keys.filter(pc.is_null(found))[0].as_py()
        raise DataError(
            f"a subset's keys must be in the training split, got {found.null_count} of {len(keys)} "
            f"that are not, such as {strange!r}. Score and retrain on the same data set and split."
        )
    positions = np.sort(found.to_numpy(zero_copy_only=False).astype(np.int64))
    if len(positions) > 1 and not np.all(np.diff(positions)):
        raise DataError("a subset's keys must be unique, got one twice. Draw the subset again.")
    return positions


def retrain(
    trial: Trial,
    kept: NDArray[np.int64],
    recipe: TrainConfig,
    data: StudyData,
    *,
    device: str = "cpu",
    after_epoch: Callable[[TrainingLoop], None] | None = None,
    state: StateFile | None = None,
) -> dict[str, Any]:
    """Trains a fresh network on a subset, stops early on validation, tests the best epoch once.

    Called in every process of a group where torch.distributed is set up, and alone elsewhere.

    Args:
        trial: Network, seeds and protocol.
        kept: Positions of the subset in the training split, `[budget]`; their order is ignored.
        recipe: How it is trained.
        data: The data set in memory.
        device: Where it is trained.
        after_epoch: Called after each epoch.
        state: Where its state is saved, and from which it goes on where it was saved before.

    Returns:
        The trial's row of the results table.

    Raises:
        ConfigError: The network's code has changed how exactly torch computes.
    """
    with numerics(recipe.numerics, device):
        row = _retrain(trial, kept, recipe, data, device, after_epoch, state)
    by = computed_by(recipe.numerics, device)
    return {**row, "device_name": by.pop("device"), **by}


def _retrain(
    trial: Trial,
    kept: NDArray[np.int64],
    recipe: TrainConfig,
    data: StudyData,
    device: str,
    after_epoch: Callable[[TrainingLoop], None] | None,
    state: StateFile | None,
) -> dict[str, Any]:
    start_s = time.perf_counter()
    init_seed, order_seed = trial.derived_seed("init"), trial.derived_seed("order")
    network = initial_network(trial.network, recipe, data.spec, init_seed).to(device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    full_steps = DataOrder(len(data.train.labels), recipe.batch_size, 0).steps_per_epoch
    subset = None if len(kept) == len(data.train.labels) else np.sort(kept)
    loop = TrainingLoop(
        network,
        recipe,
        data.normalize,
        data.examples("train", subset, recipe.loaders),
        data.examples("val", loaders=recipe.loaders),
        order_seed=order_seed,
        steps_per_epoch=full_steps if trial.protocol == "equal_steps" else None,
        ddp=DistributedDataParallel(network) if dist.is_initialized() else None,
        min_validations=MIN_VALIDATIONS,
    )
    before_s = 0.0 if state is None else _gone_on(loop, state)
    out = _run(loop, after_epoch, state)
    tested = evaluate(network, data.normalize, data.examples("test", loaders=recipe.loaders))
    return {
        "trial": trial.id,
        **asdict(trial),
        "subset_seed": trial.subset_seed,
        "init_seed": init_seed,
        "order_seed": order_seed,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        **_outcome(out),
        "train_time_s": before_s + time.perf_counter() - start_s,
        "loop_time_s": sum(row["epoch_time_s"] for row in out.history),
        "num_workers": dist.get_world_size() if dist.is_initialized() else 1,
        "micro_batch": loop.micro_batch,
        "device": device,
        "ended_early": False,
    }


def _gone_on(loop: TrainingLoop, state: StateFile) -> float:
    """Gives a loop its saved state, where there is one; returns the seconds that it took."""
    saved = state.read()
    if saved is None:
        return 0.0
    loop.load_state_dict(saved)
    return state.earlier_s


def _run(
    loop: TrainingLoop,
    after_epoch: Callable[[TrainingLoop], None] | None,
    state: StateFile | None,
) -> Outcome:
    if state is None:
        return loop.run(after_epoch)

    def saved_epoch(loop: TrainingLoop) -> None:
        state.save_if_due(loop)
        if after_epoch is not None:
            after_epoch(loop)

    with state:
        return loop.run(saved_epoch, state.save_if_due)
