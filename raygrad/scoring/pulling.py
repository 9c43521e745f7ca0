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
        leaves: What to differentiate by.
        direction: ``v``, of the outputs' shape and type; it needs no gradient.
        retain_graph: Whether the graph is pulled through again.

    Returns:
        A dense gradient a leaf (embeddings may give sparse ones), None for one that the outputs do
        not depend on.
    """
    found = torch.autograd.grad(
        (outputs * direction).sum(), leaves, retain_graph=retain_graph, allow_unused=True
    )
    return tuple(g.to_dense() if g is not None and g.is_sparse else g for g in found)
