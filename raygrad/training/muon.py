"""Muon: filters are moved by orthogonalised momentum, everything else by plain SGD."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError

STEPS = 3
"""Iterations of Newton and Schulz, as airbench94_muon takes them."""
# The quintic whose slope at 0 is the largest for which singular values stay near 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TINY = 1e-7


def orthogonalized(matrix: Tensor, steps: int = STEPS) -> Tensor:
    r"""Returns about :math:`U V^T` of a matrix :math:`U S V^T`, by products of matrices alone.

    :math:`X \leftarrow a X + (b A + c A^2) X` with :math:`A = X X^T`, from :math:`X = G / \|G\|_F`,
    maps every singular value by a quintic and leaves the singular vectors; large ones come near 1,
    between about 0.7 and 1.2 (Jordan et al. 2024, "Muon: An optimizer for hidden layers").

    Args:
        matrix: ``[m, n]``, of any size.
        steps: How often; small singular values need more.

    Returns:
        ``[m, n]``; zeros of zeros.
    """
    x = matrix / (matrix.norm() + _TINY)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    r"""Updates filters by Muon and what else there is by SGD with Nesterov momentum.

    A filter :math:`W`, ``[out, ...]``, is a matrix ``[out, rest]``. With momentum
    :math:`M \leftarrow \mu M + G` it is scaled to the norm :math:`\sqrt{out}` and moved by the rate
    times the orthogonalised :math:`G + \mu M`. That suits filters whose scale a normalisation
    takes away again, as batch norm does. After airbench94_muon of K. Jordan
    (github.com/KellerJordan/cifar10-airbench, MIT licence; arXiv 2404.00498 on the network).

    Args:
        groups: Parameters with `lr`, `momentum`, `weight_decay` (an L2 penalty, of the rest alone)
            and `is_filters`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"is_filters": False, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is taken
        """Does one update from the gradients that there are.

        Args:
            closure: Not taken.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, momentum = parameter.grad, group["momentum"]
        assert gradient is not None
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].mul_(momentum).add_(gradient)
        update = gradient.add(state["momentum_buffer"], alpha=momentum)
        if group["is_filters"]:
            parameter.mul_(len(parameter) ** 0.5 / (parameter.norm() + _TINY))
            update = orthogonalized(update.flatten(1)).view(update.shape)
        parameter.add_(update, alpha=-group["lr"])


def make_muon(network: nn.Module, config: TrainConfig) -> Muon:
    """Returns Muon over a network's parameters, by the recipe's rates.

    Filters are the weights of convolutions that learn, but for a last layer; the last layer is the
    last affine one in the network's order. Each group's `scale` is its rate over the recipe's.

    Args:
        network: Any network.
        config: `learning_rate` and `momentum` are of filters; `rest_learning_rate`,
            `last_layer_learning_rate` and `rest_momentum` of the others, whose penalty is such that
            a step at the full rate takes `weight_decay` of them away.

    Raises:
        ConfigError: The network has no filter.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    affine = [m for m in network.modules() if isinstance(m, (*kinds, nn.Linear))]
    last = affine[-1].weight if affine else None
    ids = {id(m.weight) for m in affine if isinstance(m, kinds) and m.weight is not last}
    learned = [p for p in network.parameters() if p.requires_grad]
    filters = [p for p in learned if id(p) in ids]
    rest = [p for p in learned if id(p) not in ids and p is not last]
    ends = [p for p in learned if p is last]
    if not filters:
        raise ConfigError(
            f"optimizer muon must find filters of convolutions that learn, got none in network "
            f"{config.network!r}. Take sgd or adamw."
        )
    group = _group(filters, config.learning_rate, config) | {"is_filters": True}
    groups = [group | {"momentum": config.momentum, "weight_decay": 0.0}]
    for found, rate in ((rest, config.rest_learning_rate), (ends, config.last_layer_learning_rate)):
        if found:
            groups.append(_group(found, rate, config))
    return Muon(groups)


def _group(parameters: list[nn.Parameter], rate: float, config: TrainConfig) -> dict[str, Any]:
    return {
        "params": parameters,
        "lr": rate,
        "scale": rate / config.learning_rate,
        "momentum": config.rest_momentum,
        "weight_decay": config.weight_decay / rate,
    }
