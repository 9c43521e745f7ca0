"""The functions: gradient norms of one batch, and of a batch as a whole."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrad.scoring.chunks import in_chunks
from raygrad.scoring.grad_norms import GradNormScorer, Prepared
from raygrad.scoring.losses import Loss
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.pulling import pull_back
from raygrad.scoring.running import own_parameters
from raygrad.scoring.shelf import Shelf
from raygrad.scoring.wrappers import uncompiled, unwrapped


def per_example_grad_norms(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    columns: Iterable[str] = ("grad_l2_weights",),
    *,
    loss: str | Loss | None = None,
) -> dict[str, Tensor]:
    """Norms of each example's own loss gradient: see ``GradNormScorer``, which this uses.

    What is prepared for a model is kept as long as the model lives (it is held weakly), so a second
    call costs what a scorer costs. Every call looks whether the model is the same: a module, a
    parameter, a buffer, a setting, a hook or the code that was replaced since, or a forward pass
    that makes other calls, lets all be prepared and checked anew. Weights that were updated in
    place are followed.

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
    scorer, bare = GradNormScorer(model, columns, loss=loss), unwrapped(model)
    form = (tuple(images.shape), images.dtype) if isinstance(images, Tensor) else None
    found, written = _SHELF.take(bare, scorer.columns)
    # Where weights were updated the old plan is audited first, which takes two examples.
    if found is not None and not (written and len(images) < 2):
        scorer.adopt(found.prepared, audited=not written)
        result = scorer.score(images, labels)
        if found.calls.setdefault(form, scorer.calls) == scorer.calls:
            found.prepared = scorer.prepared()
            if written:
                _SHELF.keep(bare, scorer.columns, found)
            return result.norms
        # The forward pass has made other calls, for a reason that the model does not show.
        scorer = GradNormScorer(model, columns, loss=loss)
    result = scorer.score(images, labels)
    _SHELF.keep(bare, scorer.columns, _Kept(scorer.prepared(), {form: scorer.calls}))
    return result.norms


@dataclass
class _Kept:
    """What is kept for a model and a set of columns."""

    prepared: Prepared
    """The plans."""
    calls: dict[object, int]
    """A hash of the forward pass's calls, by the form of the images."""


_SHELF: Shelf[_Kept] = Shelf()


def batch_bound(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    loss: str | Loss | None = None,
    chunk_size: int = 0,
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
        chunk_size: Examples at a time, whose gradients add up; 0 is all of them. Halved where
            memory does not suffice.

    Returns:
        ``norm_of_sum`` (the left side) and ``sum_of_norms`` (the right side), over all parameters.
    """
    column = "grad_l2_all"
    scorer, totals = GradNormScorer(model, (column,), loss=loss), _Totals()

    def work(rows: slice) -> Tensor:
        norms = scorer.score(images[rows], labels[rows]).norms[column]
        totals.add(_summed_gradients(model, scorer, images[rows], labels[rows], loss))
        return norms

    norms, _ = in_chunks(work, len(images), chunk_size or len(images), "the bound")
    whole = torch.cat(norms)
    return {"norm_of_sum": totals.norm(), "sum_of_norms": float(whole.double().sum())}


def _summed_gradients(
    model: nn.Module,
    scorer: GradNormScorer,
    images: Tensor,
    labels: Tensor,
    loss: str | Loss | None,
) -> list[Tensor | None]:
    """The gradient of the sum over examples, a tensor a parameter; None where there is none."""
    with torch.inference_mode(False), torch.enable_grad(), uncompiled():
        images = images.detach().clone()
        parameters = own_parameters(unwrapped(model))
        runner = scorer._plan(images, parameters).runner
        free = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
        logits = runner(free, images)
        direction = find_loss(loss).gradient(logits.detach(), labels).to(logits.dtype)
        with runner.standing(free):
            return list(pull_back(logits, list(free.values()), direction))


class _Totals:
    """Sums of gradients over chunks: the memory of one gradient."""

    def __init__(self) -> None:
        self._sums: list[Tensor | None] = []

    def add(self, gradients: list[Tensor | None]) -> None:
        """Adds those of a chunk; a chunk alone stays as it is, bit for bit."""
        if not self._sums:
            self._sums = gradients
            return
        for at, gradient in enumerate(gradients):
            held = self._sums[at]
            if gradient is not None:
                self._sums[at] = gradient if held is None else held.add_(gradient)

    def norm(self) -> float:
        """The l2 norm of them all."""
        squares = [(g.double() * g.double()).sum() for g in self._sums if g is not None]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
