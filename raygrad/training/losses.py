"""Losses by name: those of raygrad, or your own."""

import functools

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.losses import NamedLoss, named_loss
from raygrad.scoring.own_loss import OwnLoss
from raygrad.training.own_code import imported

DEFAULT_LOSS = "cross_entropy"
"""What networks are trained with, and scored by, where nothing else is said."""


def build_loss(name: str) -> NamedLoss:
    """Returns a loss that networks are trained with and their examples scored by.

    Args:
        name: One of `raygrad.scoring.losses.LOSSES`, such as `label_smoothing=0.1`, or your own as
            `module:callable`: a function of logits `[B, C]` and classes `[B]` that returns one
            value an example, `[B]`, or their sum.

    Raises:
        ConfigError: The name is unknown, or cannot be imported.
    """
    return OwnLoss(imported(name, "loss")) if ":" in name else named_loss(name)


def training_loss(name: str) -> NamedLoss:
    """Returns a loss that a network is trained with, as `build_loss` does.

    Raises:
        ConfigError: The name is unknown, or cannot be imported, or the loss has parameters of its
            own that require a gradient: an optimizer is given those of the network alone.
    """
    function = imported(name, "loss") if ":" in name else None
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__self__", function)
    if isinstance(module, nn.Module):
        for own, parameter in module.named_parameters():
            if parameter.requires_grad:
                raise ConfigError(
                    "a loss must have no parameters to train, got "
                    f"{own!r} of {name!r}, which would never be trained: an optimizer has those of "
                    "the network alone. Freeze it (requires_grad_(False)), or make it a part of "
                    "the network."
                )
    return build_loss(name)


def check_named_loss(name: str, num_classes: int) -> None:
    """Checks a loss that a network is trained with on made-up logits, before anything starts.

    Raises:
        ConfigError: It cannot be imported, has parameters to train, does not take logits and
            classes, or is no sum over examples.
    """
    if ":" in name:
        drawn = torch.Generator().manual_seed(0)
        logits = torch.randn(2 * num_classes, num_classes, generator=drawn)
        check_loss(training_loss(name), logits, torch.arange(2 * num_classes) % num_classes)


def check_loss(loss: NamedLoss, logits: Tensor, labels: Tensor) -> None:
    """Checks on a first batch that a loss takes it, and is a sum over examples.

    Raises:
        ConfigError: It does not, or is not.
        DataError: A label is no class.
    """
    with torch.no_grad():
        loss.check(logits, labels)
        loss.gradient(logits.detach(), labels)
