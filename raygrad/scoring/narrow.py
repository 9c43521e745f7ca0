"""Watches one module alone, where a plan has one formula: all else runs as torch runs it."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from raygrad.scoring.plan import Plan
from raygrad.scoring.verify import Reference, check_formulas, near

_LEAVES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules that call one function with a formula, and nothing else that matters."""

_LOGITS = 1e-4
"""How far logits may be from those of the watched pass: fused kernels round in another order."""


def narrowed(
    plan: Plan, parameters: Mapping[str, Tensor], pair: Tensor, reference: Reference
) -> Plan:
    """Returns a plan that watches the one layer whose norms are wanted, where that is right.

    Under a mode that watches every function torch leaves its fused kernels for whole blocks
    (attention, encoder layers), which makes the forward pass of a transformer up to 1.6 times as
    slow. For the last layer's norms nothing before it needs watching.

    Args:
        plan: A plan that was checked.
        parameters: The model's parameters by name.
        pair: The examples of the reference.
        reference: What ordinary autograd says of them.

    Returns:
        The plan itself where it has several sites, where the layer is no module of torch's own,
        or where watching the layer alone gives anything else.
    """
    sites = list(plan.sites.values())
    if len(sites) != 1 or plan.alone or plan.fallback or plan.runner.by_copy or plan.hooked:
        return plan
    site = sites[0]
    role = site.weight or site.bias
    if site.deferred or role is None or not role.direct:
        return plan
    path = role.names[0].rpartition(".")[0]
    module = dict(plan.runner.model.named_modules()).get(path)
    if type(module) not in _LEAVES:
        return plan
    found = replace(plan, sites={0: replace(site, index=0)}, count=1, inner=path)
    wrong, logits, _ = check_formulas(found, parameters, pair, reference)
    right = not wrong and near(logits, reference.logits, _LOGITS)
    return found if right else plan
