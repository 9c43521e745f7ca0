"""The reference: one example at a time through ordinary autograd. Slow, and right by definition."""

import copy
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.columns import GRAD_COLUMNS, check_columns, group_of, split_column
from raygrad.scoring.losses import Loss, named_loss
from raygrad.scoring.pulling import pull_back
from raygrad.scoring.running import without_checkpoints
from raygrad.scoring.strays import passing_for
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
    before, model = dict(model.named_parameters()), _in_type(model, dtype)
    if dtype is not None and images.is_floating_point():
        images = images.to(dtype)
    trainable = {name for name, p in before.items() if p.requires_grad}
    value = named_loss(loss) if isinstance(loss, str) else loss or F.cross_entropy
    rows: dict[str, list[Tensor]] = {column: [] for column in asked}
    copies: int | None = None
    for image, label in zip(images, labels, strict=True):

        def one(number: int, x: Tensor = image, y: Tensor = label) -> dict[str, Tensor]:
            # A model of its own for each image: nothing that one leaves behind is another's.
            own = copy.deepcopy(model)
            for name, parameter in own.named_parameters():
                passing_for(parameter, before[name])
            return _gradients(own, value, x, y, number)

        if copies is None:
            copies = _copies_beside(one)
        by_name = one(copies)
        for column in asked:
            rows[column].append(_norm(by_name, column, last_layer, trainable))
    return {column: torch.stack(values) for column, values in rows.items()}


def _in_type(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy of a model in a floating-point type, all of whose parameters require a gradient."""
    model = copy.deepcopy(model)
    if dtype is not None:
        wide = torch.promote_types(dtype, torch.complex32)
        model._apply(
            lambda t: t.to(dtype) if t.is_floating_point() else t.to(wide) if t.is_complex() else t
        )
    for parameter in model.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    return model


def _copies_beside(one: Callable[[int], dict[str, Tensor]]) -> int:
    """Beside how many copies of itself an image has its own gradient: one, or none.

    Not all of torch's kernels are right for a batch of one: the backward pass of an eval batch
    normalisation is wrong on the CPU for a gradient that arrives transposed (torch 2.14). But a
    backward pass that goes by the number of images is right for one alone.

    Args:
        one: Gives the gradients of an image beside so many copies.
    """
    two, three = one(1), one(2)
    largest = max((float(rows.abs().max()) for rows in two.values() if len(rows)), default=0.0)
    for name, rows in two.items():
        other = three.get(name, torch.zeros_like(rows))
        most = float(rows.abs().max()) if len(rows) else 0.0
        # What is next to nothing beside the others is rounding.
        if len(rows) and float((other - rows).abs().max()) > 1e-2 * most + 1e-6 * largest:
            return 0
    return 1


def _gradients(
    model: nn.Module, value: Loss, image: Tensor, label: Tensor, copies: int
) -> dict[str, Tensor]:
    """One example's gradients by name, flat, in float64; moduli where they are complex."""
    leaves = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with without_checkpoints():
        total = value(_logits(model, image, copies), label[None]).sum()
        grads = pull_back(total, list(leaves.values()), torch.ones_like(total))
    return {
        name: (grad.abs() if grad.is_complex() else grad).double().flatten()
        for name, grad in zip(leaves, grads, strict=True)
        if grad is not None
    }


def _logits(model: nn.Module, image: Tensor, copies: int) -> Tensor:
    """The logits of one image, ``[1, C]``, run beside copies of itself that get no gradient.

    A model that says something else of an image beside its copy runs the image alone.
    """
    alone: Tensor = model(image[None].clone())
    if not copies:
        return alone
    beside: Tensor = model(torch.stack([image] * (1 + copies)))[:1]
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
