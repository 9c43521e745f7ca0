"""From the partial norms of parameters to columns."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from raygrad.scoring.columns import group_of, split_column
from raygrad.scoring.plan import Plan
from raygrad.scoring.reductions import Partial, combine
from raygrad.scoring.strays import StrayParameterError


def totals(
    plan: Plan,
    partials: Mapping[str, Partial],
    columns: Iterable[str],
    scale: Tensor,
    trainable: frozenset[str],
) -> dict[str, Tensor]:
    """The norm that each column asks for.

    Args:
        plan: The plan by which the partial norms were found.
        partials: Partial norms ``[B]`` by parameter, for directions of unit size.
        columns: The columns.
        scale: The sizes of the directions, ``[B]``.
        trainable: The parameters of the subset of this name.

    Returns:
        Each column, float32 ``[B]``.

    Raises:
        StrayParameterError: A parameter's partial norms have not come.
    """
    missing = set(plan.needed) - set(partials) - plan.unused
    if missing:
        # What was computed from them came from elsewhere than this pass.
        raise StrayParameterError(sorted(missing))
    norms = {}
    for column in columns:
        norm, subset = split_column(column)
        names = [
            name
            for name in partials
            if subset in ("all", group_of(name))
            or (subset == "last_layer_weights" and name in (plan.last_layer or ()))
            or (subset == "trainable" and name in trainable)
        ]
        if names:
            total = combine([partials[name] for name in names], norm)
            norms[column] = (total * scale).float()
        else:
            norms[column] = torch.zeros_like(scale, dtype=torch.float32)
    return norms
