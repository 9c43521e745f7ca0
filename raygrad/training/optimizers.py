"""A recipe's optimiser and how its learning rate goes over training."""

import math

import torch
from torch import nn

from raygrad.config import TrainConfig
from raygrad.training.muon import make_muon


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Returns the recipe's optimiser over the network's parameters."""
    if config.optimizer == "muon":
        return make_muon(network, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def learning_rate_at(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    r"""Returns the learning rate of a step.

    With ``schedule`` step it is constant over an epoch; with cosine, of the share t of training
    that is over (Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, one cycle to 0),

    .. math:: \eta_t = \eta \, (1 + \cos \pi t) / 2

    With linear it is :math:`\eta \, (1 - t)`.

    In the first ``warmup_epochs`` the rate is multiplied by the share of them that is over after
    the step, so that it is never 0.

    Args:
        config: The recipe.
        step: Counted from 0 over all epochs.
        steps_per_epoch: Steps of an epoch, at least 1.
    """
    if config.schedule == "step":
        epoch = step // steps_per_epoch
        decays = sum(epoch >= at for at in config.lr_decay_epochs)
        rate = config.learning_rate * config.lr_decay_factor**decays
    else:
        share = step / (config.epochs * steps_per_epoch)
        left = 1 - share if config.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
        rate = config.learning_rate * left
    warmup_steps = config.warmup_epochs * steps_per_epoch
    return rate * min(1.0, (step + 1) / warmup_steps) if warmup_steps else rate
