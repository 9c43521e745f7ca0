"""The reference: one example at a time through ordinary autograd. Slow, and right by definition."""

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.columns import GRAD_COLUMNS, check_columns, group_of, split_column
from raygrad.scoring.losses import Loss, named_loss


def loop_grad_norms(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    columns: Iterable[str] = GRAD_COLUMNS,
    *,
    last_layer: str | None = None,
    dtype: torch.dtype | None = torch.float64,
    loss: str | Loss | None = None,
) -> dict[str, Tensor]:
    """Gradient norms by a loop over single examples: the oracle of every fast path.

    Args:
        model: A classifier; a copy of it is used.
        images: ``[B, ...]``, what the model takes.
        labels: int64 ``[B]``, or what the loss takes, a row an example.
        columns: Gradient-norm columns.
        last_layer: Path of the module whose ``weight`` is the last layer's, needed when a
            ``last_layer_weights`` column is asked for.
        dtype: The floating-point type to compute in; None keeps the model's own.
        loss: The loss, through plain autograd; cross-entropy by default.

    Returns:
        Each column as float64 ``[B]``.

    Raises:
        ConfigError: A column is unknown, or the last layer is needed and not named.
    """
    asked = check_columns(columns, GRAD_COLUMNS)
    if last_layer is None and any(split_column(c)[1] == "last_layer_weights" for c in asked):
        raise ConfigError("the oracle must be told the last layer, got None. Name its module.")
    model = copy.deepcopy(model)
    if dtype is not None:
        model = model.to(dtype)
        images = images.to(dtype) if images.is_floating_point() else images
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    value = named_loss(loss) if isinstance(loss, str) else loss or F.cross_entropy
    names = [name for name, _ in model.named_parameters()]
    rows: dict[str, list[Tensor]] = {column: [] for column in asked}
    for image, label in zip(images, labels, strict=True):
        total = value(model(image[None]), label[None]).sum()
        grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
        by_name = {
            name: grad.double().flatten()
            for name, grad in zip(names, grads, strict=True)
            if grad is not None
        }
        for column in asked:
            rows[column].append(_norm(by_name, column, last_layer, trainable))
    return {column: torch.stack(values) for column, values in rows.items()}


def _norm(
    grads: dict[str, Tensor], column: str, last_layer: str | None, trainable: set[str]
) -> Tensor:
    norm, subset = split_column(column)
    if subset == "last_layer_weights":
        chosen = [grads[f"{last_layer}.weight"]]
    elif subset == "trainable":
        chosen = [grad for name, grad in grads.items() if name in trainable]
    else:
        chosen = [grad for name, grad in grads.items() if subset in ("all", group_of(name))]
    if not chosen:
        return torch.zeros((), dtype=torch.float64)
    return torch.linalg.vector_norm(
        torch.cat(chosen), ord={"l1": 1, "l2": 2, "linf": torch.inf}[norm]
    )
