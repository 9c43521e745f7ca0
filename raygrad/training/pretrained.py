"""Weights that torchvision and timm publish for their networks: a backbone without a file of it."""

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raygrad.errors import ConfigError
from raygrad.training.models import TIMM_PREFIX, check_network, library_networks
from raygrad.training.networks import NETWORKS, ImageSpec

PRETRAINED = "pretrained"
"""Stands for the published weights where a file of weights could be named."""

_CHANNELS = 3


@dataclass(frozen=True)
class Published:
    """What is published of a network's weights."""

    name: str
    """Which they are, of those that there are of the network."""
    num_classes: int | None
    """Classes that they tell apart; None where they end before the layer that would."""
    image_size: int
    """The side of the squares that they see best, in pixels."""
    mean: tuple[float, ...]
    """What is subtracted of pixels in [0, 1], a channel."""
    std: tuple[float, ...]
    """What is divided by, a channel."""


def published(network: str) -> Published:
    """Returns what is published of a network's weights; nothing is downloaded.

    Args:
        network: A classifier of torchvision's or timm's, as `build_network` takes its name.

    Raises:
        ConfigError: There is no such network, or no weights of it.
    """
    check_network(network)
    if ":" in network or network in NETWORKS:
        raise ConfigError(
            f"pretrained weights must be torchvision's or timm's, got network {network!r}. "
            "Name one of theirs (raygrad models), or give a file: --checkpoint FILE."
        )
    if network in library_networks():
        weights = importlib.import_module("torchvision.models").get_model_weights(network).DEFAULT
        shown = weights.transforms()
        num_classes, size = len(weights.meta["categories"]), shown.crop_size[0]
        return Published(str(weights), num_classes, size, tuple(shown.mean), tuple(shown.std))
    known = _timm_facts(network)
    name = f"{known.architecture}.{known.tag}" if known.tag else known.architecture
    size, mean, std = known.input_size[-1], tuple(known.mean), tuple(known.std)
    return Published(name, known.num_classes or None, size, mean, std)


def pretrained_network(network: str, spec: ImageSpec) -> nn.Module:
    """Returns a network with its published weights, from the library's cache or its host.

    Args:
        network: As of `published`.
        spec: Images of three channels, and as many classes as the weights tell apart. Where they
            tell none apart a last layer of the spec's classes is new; features are what enters it.

    Raises:
        ConfigError: There are no such weights, they cannot be had, or are for other images.
    """
    known = published(network)
    classes = known.num_classes or spec.num_classes
    if (spec.channels, spec.num_classes) != (_CHANNELS, classes):
        raise ConfigError(
            f"pretrained weights {known.name} must see {_CHANNELS} channels and tell apart "
            f"{classes} classes, got {spec.channels} and {spec.num_classes}."
        )
    try:
        # A layer that is new is the same each time: the weights' digest says what was seen.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built: nn.Module = _built(network, spec)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            f"pretrained weights {known.name} must be in the library's cache or within reach, and "
            f"fit images of {spec.height} pixels, got {reason}. Download them elsewhere and give "
            "the file: --checkpoint FILE."
        ) from error
    return built


def _built(network: str, spec: ImageSpec) -> Any:
    if network in library_networks():
        models = importlib.import_module("torchvision.models")
        options = {"image_size": spec.height} if "vit" in network.split("_") else {}
        weights = models.get_model_weights(network).DEFAULT
        return models.get_model(network, weights=weights, progress=False, **options)
    timm, short = importlib.import_module("timm"), network.removeprefix(TIMM_PREFIX)
    options = {"pretrained": True, "num_classes": spec.num_classes}
    try:
        return timm.create_model(short, img_size=(spec.height, spec.width), **options)
    except TypeError:
        # Convolutional networks of timm take any size and no such option.
        return timm.create_model(short, **options)


def _timm_facts(network: str) -> Any:
    known = importlib.import_module("timm").get_pretrained_cfg(network.removeprefix(TIMM_PREFIX))
    if known is None or not known.has_weights:
        raise ConfigError(
            f"pretrained weights must be published, got none of network {network!r} in timm. "
            "Give a file: --checkpoint FILE."
        )
    return known
