"""The reference: one example at a time through ordinary autograd. Slow, and right by definition."""

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.columns import GRAD_COLUMNS, check_columns, group_of, split_column
from raygrad.scoring.losses import Loss, named_loss
from raygrad.scoring.running import without_checkpoints
from raygrad.scoring.verify import near


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
        wide = torch.promote_types(dtype, torch.complex32)
        model._apply(
            lambda t: t.to(dtype) if t.is_floating_point() else t.to(wide) if t.is_complex() else t
        )
        images = images.to(dtype) if images.is_floating_point() else images
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    for parameter in model.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    value = named_loss(loss) if isinstance(loss, str) else loss or F.cross_entropy
    rows: dict[str, list[Tensor]] = {column: [] for column in asked}
    for image, label in zip(images, labels, strict=True):
        # A model of its own for each image: nothing that one leaves behind is another's.
        own = copy.deepcopy(model)
        leaves = {name: p for name, p in own.named_parameters() if p.requires_grad}
        with without_checkpoints():
            total = value(_logits(own, image), label[None]).sum()
            grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        dense = [g.to_dense() if g is not None and g.is_sparse else g for g in grads]
        by_name = {
            name: (grad.abs() if grad.is_complex() else grad).double().flatten()
            for name, grad in zip(leaves, dense, strict=True)
            if grad is not None
        }
        for column in asked:
            rows[column].append(_norm(by_name, column, last_layer, trainable))
    return {column: torch.stack(values) for column, values in rows.items()}


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    """The logits of one image, ``[1, C]``, run beside a copy of itself that gets no gradient.

    Not all of torch's kernels are right for a batch of one: the backward pass of an eval batch
    normalisation is wrong on the CPU for a gradient that arrives transposed (torch 2.14). A model
    that says something else of an image beside its copy runs the image alone.
    """
    beside: Tensor = model(torch.stack([image, image]))[:1]
    alone: Tensor = model(image[None].clone())
    return beside if near(beside, alone, 1e-5) else alone


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
