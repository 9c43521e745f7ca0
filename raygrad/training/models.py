"""Networks by name, each adapted to the channels, size and classes of a data set."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class ImageSpec:
    """What a network must accept and tell apart."""

    channels: int
    """Colour channels, 1 or 3."""
    height: int
    """Rows of pixels."""
    width: int
    """Columns of pixels."""
    num_classes: int
    """Classes that the labels count."""


def linear(spec: ImageSpec) -> nn.Module:
    """Multinomial logistic regression on the pixels."""
    pixels = spec.channels * spec.height * spec.width
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, spec.num_classes))


def mlp(spec: ImageSpec) -> nn.Module:
    """Two hidden layers of 256 units with ReLU."""
    pixels = spec.channels * spec.height * spec.width
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, spec.num_classes),
    )


def cnn(spec: ImageSpec) -> nn.Module:
    """Two convolutions and two fully connected layers: the paper's network for MNIST.

    Each 3x3 convolution (32, then 64 channels) is followed by ReLU and 2x2 max-pooling; images
    below 16 pixels are pooled after the second one only. So 28 pixels become 7, and 8 become 4.
    """
    pools_twice = min(spec.height, spec.width) >= 16
    shrink = 4 if pools_twice else 2
    features = 64 * (spec.height // shrink) * (spec.width // shrink)
    return nn.Sequential(
        nn.Conv2d(spec.channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2) if pools_twice else nn.Identity(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, spec.num_classes),
    )


NETWORKS: dict[str, Callable[[ImageSpec], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
}
"""Networks that adapt to any image size, by name."""


def check_network(name: str) -> None:
    """Raises ConfigError unless `name` is a known network or reads `module:callable`."""
    if ":" not in name and name not in NETWORKS:
        raise ConfigError(unknown_name("network", name, NETWORKS) + " Or give module:callable.")


def build_network(name: str, spec: ImageSpec, seed: int) -> nn.Module:
    """Returns a freshly initialised network; the same seed gives the same weights.

    Args:
        name: A key of `NETWORKS`, or `module:callable`; the callable takes an `ImageSpec`.
        spec: What the network must accept and tell apart.
        seed: Seeds the initial weights; torch's global random state is left as it was.

    Raises:
        ConfigError: The name is unknown, or the network does not map images to class logits.
    """
    check_network(name)
    builder = _import(name) if ":" in name else NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = builder(spec)
    _check_logits(name, network, spec)
    return network


def num_parameters(network: nn.Module) -> int:
    """Returns how many numbers the network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def _import(name: str) -> Callable[[ImageSpec], nn.Module]:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"network must name an importable module:callable, got {name!r} ({error}). "
            "Run where the module can be imported."
        ) from error


def _check_logits(name: str, network: nn.Module, spec: ImageSpec) -> None:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        logits: Tensor = network(torch.zeros(2, spec.channels, spec.height, spec.width))
    network.train(was_training)
    if tuple(logits.shape) != (2, spec.num_classes):
        raise ConfigError(
            f"network {name!r} must return logits [2, {spec.num_classes}] for 2 images, "
            f"got {list(logits.shape)}. Give it num_classes={spec.num_classes}."
        )
