"""A network trained on all folds but one, and what it says of that one, which it has not seen."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError, ResourceError
from raygrad.scoring.numerics import numerics
from raygrad.training.dynamics import Dynamics
from raygrad.training.examples import Examples
from raygrad.training.features import FeatureTap
from raygrad.training.loop import EVAL_BATCH_SIZE, TrainingLoop, device_of
from raygrad.training.models import ImageSpec
from raygrad.training.preprocess import channel_statistics
from raygrad.training.starting import initial_network

log = logging.getLogger("raygrad")

_LEAST_STEPS, _MANY = 400, 4096
_VALIDATED = 10
"""One of so many training examples says which epoch was best."""

_CPU_PIXELS = 2**19
"""Pixels that a CPU is shown at once: what layers make of more is written to memory that the system
gives and takes back with each layer, which takes longer than the layers do."""


@dataclass(frozen=True)
class Judged:
    """What a network says of the examples of a fold that it has not seen."""

    probabilities: NDArray[np.float32]
    """``[N, C]``."""
    features: NDArray[np.float32]
    """What entered its last linear layer, ``[N, D]``; its logits where it has none."""
    accuracy: float
    """The share whose label is its likeliest class, in [0, 1]."""
    aum: NDArray[np.float32]
    """The area under the margin of what it was trained on, turned so that higher is harder (see
    `Dynamics`), of all examples, ``[M]``; NaN of those that it was not trained on."""


def audit_recipe(network: str, epochs: int, number: int, side: int, seed: int) -> TrainConfig:
    """Returns how a fold's network is trained: by a rule that suits most networks, in few epochs.

    Few examples are seen more often: no training has fewer than 400 steps.

    Args:
        network: Its name.
        epochs: Passes over the other folds, at least.
        number: Examples of the other folds.
        side: Of the images, in pixels: they are moved by up to a sixteenth of it.
        seed: Seeds weights and order.
    """
    batch_size = 64 if number >= _MANY else 32
    epochs = max(epochs, math.ceil(_LEAST_STEPS / max(1, number // batch_size)))
    return TrainConfig(
        network=network,
        epochs=epochs,
        batch_size=batch_size,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=min(1.0, epochs / 4),
        augment="shift",
        augment_pixels=max(1, side // 16),
        patience=epochs,
        seed=seed,
        channels_last=True,
    )


def judged_fold(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    held: NDArray[np.bool_],
    num_classes: int,
    recipe: TrainConfig,
    trained: NDArray[np.bool_] | None = None,
    device: str = "auto",
) -> Judged:
    """Trains on what is not held out, or on a part of it, and judges what is.

    Args:
        images: uint8 ``[N, C, H, W]``.
        labels: Classes, ``[N]``.
        held: Which examples are held out, ``[N]``.
        num_classes: C.
        recipe: How it is trained; its seed seeds all.
        trained: What it is trained on, ``[N]``, nothing held out; by default all that is not.
        device: As of `device_here`.

    Raises:
        ConfigError: The network cannot take such images.
        ResourceError: There is no GPU where one is asked for.
    """
    at = device_here(device)
    with numerics(recipe.numerics, at):
        return _judged(images, labels, held, num_classes, recipe, trained, at)


def device_here(asked: str) -> torch.device:
    """Returns where an audit's networks run: in this process, on the GPU that it sees, if any.

    Args:
        asked: auto, cpu or cuda.

    Raises:
        ResourceError: A GPU is asked for, and this process sees none.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "an audit on device cuda needs a GPU where the command runs, got none. "
            "Set device to cpu or auto."
        )
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


def _judged(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    held: NDArray[np.bool_],
    num_classes: int,
    recipe: TrainConfig,
    trained: NDArray[np.bool_] | None,
    device: torch.device,
) -> Judged:
    pixels, targets = torch.from_numpy(images), torch.tensor(labels)
    seen = np.flatnonzero(~held if trained is None else trained)
    order = np.random.default_rng(recipe.seed).permutation(seen)
    cut = max(1, len(order) // _VALIDATED)
    val, train = (torch.from_numpy(np.sort(part)) for part in (order[:cut], order[cut:]))
    _, channels, height, width = images.shape
    spec = ImageSpec(channels, height, width, num_classes)
    network = initial_network(recipe.network, recipe, spec, recipe.seed)
    network.to(device).to(memory_format=torch.channels_last)
    normalize = channel_statistics(pixels[train])
    watched = Dynamics(len(train), device)
    loop = TrainingLoop(
        network,
        recipe,
        normalize,
        Examples(pixels, targets[train], rows=train),
        Examples(pixels, targets[val], rows=val),
        order_seed=recipe.seed,
        observers=(watched,),
    )
    loop.run()
    aum = np.full(len(labels), np.nan, np.float32)
    aum[train.numpy()] = watched.columns()["aum"]
    features, logits = outputs(network.eval(), normalize, pixels, torch.from_numpy(held).nonzero())
    own = torch.from_numpy(labels[held])
    accuracy = float((logits.argmax(1) == own).float().mean()) if len(own) else float("nan")
    found = logits.double().softmax(1).float().numpy()
    return Judged(found, features.numpy(), accuracy, aum)


def pass_size(sides: Sequence[int], device: torch.device) -> int:
    """Returns how many images a network is shown at once where nothing is learnt.

    Args:
        sides: Height and width of the images, in pixels.
        device: Where the network runs.
    """
    if device.type != "cpu":
        return EVAL_BATCH_SIZE
    return min(EVAL_BATCH_SIZE, max(1, _CPU_PIXELS // math.prod(sides)))


@torch.no_grad()
def outputs(
    network: nn.Module, normalize: object, pixels: torch.Tensor, at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns features ``[n, D]`` and logits ``[n, C]`` of the images at some places, on the CPU.

    A network without a last linear layer has its logits as features.
    """
    try:
        tap: FeatureTap | None = FeatureTap(network)
    except ConfigError:
        tap = None
    features, logits, device = [], [], device_of(network)
    for places in at.flatten().split(pass_size(pixels.shape[-2:], device)):
        inputs = normalize(pixels[places].to(device))  # type: ignore[operator]  # a Normalize
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        if tap is None:
            found = network(inputs)
            features.append(found)
        else:
            entered, found = tap.with_logits(inputs)
            features.append(entered)
        logits.append(found)
    return torch.cat(features).cpu(), torch.cat(logits).cpu()
