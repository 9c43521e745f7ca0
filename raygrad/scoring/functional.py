"""The functions: gradient norms of one batch, and of a batch as a whole."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from raygrad.scoring.grad_norms import GradNormScorer
from raygrad.scoring.losses import Loss
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.swapping import functional_call
from raygrad.scoring.wrappers import uncompiled, unwrapped


def per_example_grad_norms(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    columns: Iterable[str] = ("grad_l2_weights",),
    *,
    loss: str | Loss | None = None,
) -> dict[str, Tensor]:
    """Norms of each example's own loss gradient: see ``GradNormScorer``, which this uses once.

    For more than a few batches make one ``GradNormScorer``: it prepares the model once.

    Args:
        model: A classifier in eval mode.
        images: ``[B, ...]``.
        labels: int64 ``[B]``, or what the loss takes, a row an example.
        columns: Gradient-norm columns, ``grad_{l1,l2,linf}_{all,biases,weights,
            last_layer_weights,trainable}``.
        loss: A name of `raygrad.scoring.losses`, or any function of logits ``[B, C]`` and labels
            to ``[B]`` or to the sum over examples; cross-entropy by default.

    Returns:
        Each asked column, float32 ``[B]``.

    Raises:
        ConfigError: A column, a shape or a type is wrong, the loss mixes examples, or the model
            cannot have per-example gradients.
        DataError: A label is not a class.
    """
    return GradNormScorer(model, columns, loss=loss).score(images, labels).norms


def batch_bound(
    model: nn.Module, images: Tensor, labels: Tensor, *, loss: str | Loss | None = None
) -> dict[str, float]:
    r"""Compares the norm of a batch's summed gradient with the sum of its examples' norms.

    Equation 6 and Figure 1 of arXiv 1811.12569:

    .. math:: \lVert \textstyle\sum_i \nabla_\theta L_i \rVert_2
              \le \sum_i \lVert \nabla_\theta L_i \rVert_2

    Args:
        model: A classifier in eval mode.
        images: ``[B, ...]``.
        labels: int64 ``[B]``, or what the loss takes, a row an example.
        loss: As `per_example_grad_norms` takes it.

    Returns:
        ``norm_of_sum`` (the left side) and ``sum_of_norms`` (the right side), over all parameters.
    """
    column = "grad_l2_all"
    norms = GradNormScorer(model, (column,), loss=loss).score(images, labels).norms[column]
    model = unwrapped(model)
    free = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    with torch.enable_grad(), uncompiled():
        logits = functional_call(model, free, (images.detach(),))
        direction = find_loss(loss).gradient(logits.detach(), labels).to(logits.dtype)
        summed = torch.autograd.grad(logits, list(free.values()), direction, allow_unused=True)
    squares = [(g.double() * g.double()).sum() for g in summed if g is not None]
    total = torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
    return {"norm_of_sum": float(total), "sum_of_norms": float(norms.double().sum())}
