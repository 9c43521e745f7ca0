"""A short measurement of how fast a network trains here, for planning."""

import dataclasses
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from raygrad.config import TrainConfig
from raygrad.config.training import PHOTO_AUGMENTATIONS
from raygrad.scoring.numerics import numerics
from raygrad.training.examples import Examples
from raygrad.training.loop import EVAL_BATCH_SIZE, TrainingLoop, evaluate
from raygrad.training.models import build_network
from raygrad.training.plan import Rates
from raygrad.training.study_data import StudyData

# What Tune, reading the subset and writing the row take beside the trial itself: 0.23 s at most,
# measured over 20 trials of the MNIST CNN.
TRIAL_OVERHEAD_S = 0.2
# What Tune takes from its call to its first trial's process: 6 s, measured on a busy machine.
TUNE_START_S = 5.0
# A small batch beside the recipe's own tells an update's fixed cost from that of its examples.
SMALL_SHARE = 8


def measure_rates(
    network_name: str, recipe: TrainConfig, data: StudyData, device: str, seconds: float
) -> Rates:
    """Trains and evaluates for about `seconds` and returns the rates.

    Called in every process of a group where torch.distributed is set up, and alone elsewhere.

    Args:
        network_name: The network.
        recipe: Its batch size and optimiser.
        data: The data set in memory.
        device: Where it is trained.
        seconds: How long the measurement may take, about, after the first updates.

    Returns:
        The rates; `start_s` is what the first updates of the process took.
    """
    with numerics(recipe.numerics, device):
        return _measure_rates(network_name, recipe, data, device, seconds)


def _measure_rates(
    network_name: str, recipe: TrainConfig, data: StudyData, device: str, seconds: float
) -> Rates:
    begun_s = time.perf_counter()
    network = build_network(network_name, data.spec, 0).to(device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    build_s = time.perf_counter() - begun_s
    large = min(recipe.batch_size, len(data.train.labels))
    small = max(1, large // SMALL_SHARE)
    ddp = DistributedDataParallel(network) if dist.is_initialized() else None

    def train_s(batch: int, steps: int) -> float:
        examples = _first(data, "train", batch, device)
        # The images are in memory, whatever training does.
        augment = "+".join(n for n in recipe.augmentations if n not in PHOTO_AUGMENTATIONS)
        config = dataclasses.replace(
            recipe, epochs=1, batch_size=batch, augment=augment or "none", small_epochs=0
        )
        loop = TrainingLoop(
            network,
            config,
            data.normalize,
            examples,
            _first(data, "val", 1, device),
            order_seed=0,
            steps_per_epoch=steps,
            ddp=ddp,
        )
        loop.run()
        return float(loop.outcome.history[-1]["epoch_time_s"])

    begun_s = time.perf_counter()
    train_s(large, 2)
    first_s = time.perf_counter() - begun_s
    once_s = train_s(large, 3) / 3
    steps = _agreed(max(5, min(2000, round(seconds / 3 / max(once_s, 1e-6)))))
    large_s = train_s(large, steps) / steps
    small_s = train_s(small, steps) / steps if small < large else large_s
    example_s = max(0.0, large_s - small_s) / max(1, large - small)
    evaluated = _first(data, "val", EVAL_BATCH_SIZE, device)
    begun_s, times = time.perf_counter(), 0
    while times < 2 or _agreed(time.perf_counter() - begun_s < seconds / 3):
        evaluate(network, data.normalize, evaluated)
        times += 1
    eval_s = (time.perf_counter() - begun_s) / (times * len(evaluated))
    step_s = max(0.0, large_s - example_s * large)
    return Rates(step_s, example_s, eval_s, build_s + TRIAL_OVERHEAD_S, first_s + TUNE_START_S)


def mean_rates(measured: list[Rates]) -> Rates:
    """Returns the mean of what several processes measured at the same time."""
    names = [f.name for f in dataclasses.fields(Rates)]
    return Rates(*(sum(getattr(m, name) for m in measured) / len(measured) for name in names))


def _first(data: StudyData, split: str, size: int, device: str) -> Examples:
    examples = data.examples(split)
    return Examples(examples.between(0, size).to(device), examples.labels[:size].to(device))


def _agreed(value: int) -> int:
    """Returns rank 0's value on every rank."""
    if not dist.is_initialized():
        return value
    told = torch.tensor([int(value)])
    dist.broadcast(told, 0)
    return int(told)
