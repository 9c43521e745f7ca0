"""Gradients along a direction at the outputs, without what torch imports to check its shape."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pull_back(
    outputs: Tensor, leaves: Sequence[Tensor], direction: Tensor, *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    r"""Returns :math:`\sum_{ij} v_{ij} \, \partial o_{ij} / \partial \theta` for each leaf.

    The same numbers, bit for bit, as `torch.autograd.grad` with `grad_outputs`: the sum hands on
    1, and 1 times the direction is the direction. But torch compares the shapes of `grad_outputs`
    by its symbolic shapes, for which it imports sympy, half a second of CPU in every process.

    Args:
        outputs: ``o``, such as logits ``[B, C]``.
        leaves: What to differentiate by: leaves of this pass alone.
        direction: ``v``, of the outputs' shape and type; it needs no gradient.
        retain_graph: Whether the graph is pulled through again.

    Returns:
        A dense gradient a leaf (embeddings may give sparse ones), None for one that the outputs do
        not depend on.
    """
    # A forward pass that calls ``backward`` has left something already, which is no part of this.
    held = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    found = torch.autograd.grad(
        (outputs * direction).sum(), leaves, retain_graph=retain_graph, allow_unused=True
    )
    whole = tuple(_whole(g, leaf) for g, leaf in zip(found, leaves, strict=True))
    for leaf, grad in zip(leaves, held, strict=True):
        leaf.grad = grad
    return whole


def _whole(found: Tensor | None, leaf: Tensor) -> Tensor | None:
    """What came, dense, with what a function's own backward pass has left at the leaf.

    A reversible block runs a part of the model again in its backward pass, and calls ``backward``.
    """
    if found is not None and found.is_sparse:
        found = found.to_dense()
    if leaf.grad is None:
        return found
    left = leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad
    return left if found is None else found + left
