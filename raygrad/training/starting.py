"""What a network is before its first step: fresh, or weights that were trained before."""

import logging

import torch
from torch import nn

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.outside import NetworkSource, load_weights, read_weights

log = logging.getLogger("raygrad")


def initial_network(name: str, config: TrainConfig, spec: ImageSpec, seed: int) -> nn.Module:
    """Returns the network that training begins with, on the CPU.

    With `start_from` its weights are loaded, but for those of a last layer that told apart another
    number of classes, which stays as the seed makes it, as is usual in fine-tuning.

    Args:
        name: The network, as `build_network` takes it.
        config: `start_from`, and `small_size` with `small_epochs`, are used.
        spec: Its images and classes.
        seed: Seeds fresh weights.

    Raises:
        ConfigError: The name is unknown, the file does not hold this network's weights, or the
            network does not take images scaled down as the recipe's first epochs have them.
    """
    network = build_network(name, spec, seed)
    if config.small_epochs:
        _check_small(name, network, spec, config.small_size)
    if config.start_from is None:
        return network
    fresh = network.state_dict()
    weights = read_weights(config.start_from)
    other_classes = [
        key
        for key, tensor in weights.items()
        if key in fresh
        and tensor.shape != fresh[key].shape
        and tensor.shape[1:] == fresh[key].shape[1:]
        and fresh[key].shape[:1] == (spec.num_classes,)
    ]
    for key in other_classes:
        weights[key] = fresh[key]
    if len(other_classes) == len(weights):
        raise ConfigError(
            f"start_from must hold weights of {name!r}, got none that fit, in {config.start_from}. "
            "Give the network that they are of."
        )
    load_weights(network, weights, NetworkSource(name, spec, config.start_from, seed))
    if other_classes:
        log.info("train: fresh for %d classes: %s", spec.num_classes, ", ".join(other_classes))
    return network


@torch.no_grad()
def _check_small(name: str, network: nn.Module, spec: ImageSpec, side: int) -> None:
    """Raises ConfigError where a network does not take images of `side` pixels."""
    if max(spec.height, spec.width) <= side:
        return
    was_training = network.training
    try:
        network.eval()(torch.zeros(2, spec.channels, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"with small_epochs, network {name!r} must take images of small_size too, got "
            f"{str(error).splitlines()[0]!r} at {side} pixels. Leave small_epochs at 0."
        ) from error
    network.train(was_training)
