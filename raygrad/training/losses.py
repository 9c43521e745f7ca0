"""Losses by name: those of raygrad, or your own."""

import torch
from torch import Tensor

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


def check_named_loss(name: str, num_classes: int) -> None:
    """Checks a loss of the user's own on made-up logits, before anything starts for it.

    Raises:
        ConfigError: It cannot be imported, does not take logits and classes, or is no sum over
            examples.
    """
    if ":" in name:
        drawn = torch.Generator().manual_seed(0)
        logits = torch.randn(2 * num_classes, num_classes, generator=drawn)
        check_loss(build_loss(name), logits, torch.arange(2 * num_classes) % num_classes)


def check_loss(loss: NamedLoss, logits: Tensor, labels: Tensor) -> None:
    """Checks on a first batch that a loss takes it, and is a sum over examples.

    Raises:
        ConfigError: It does not, or is not.
        DataError: A label is no class.
    """
    with torch.no_grad():
        loss.check(logits, labels)
        loss.gradient(logits.detach(), labels)
