"""Watches one module alone, where a plan has one formula: all else runs as torch runs it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.scoring.apart import ROUNDING
from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.itself import refuse_other_branch
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.plan import Plan, backward, run_sites
from raygrad.scoring.pulling import pull_back
from raygrad.scoring.reductions import reduce_gradient
from raygrad.scoring.running import Runner, UncopyableModelError, has_caches
from raygrad.scoring.sites import price_of, site_of_rows
from raygrad.scoring.strays import StrayParameterError
from raygrad.scoring.trace import Call, Trace
from raygrad.scoring.trial import trace
from raygrad.scoring.verify import (
    ALL_NORMS,
    BROKEN,
    Reference,
    check_formulas,
    disagreeing,
    near,
)

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
    found = _inner(plan)
    if found is None:
        return plan
    wrong, logits, _ = check_formulas(found, parameters, pair, reference)
    right = not wrong and near(logits, reference.logits, _LOGITS)
    return found if right else plan


def _inner(plan: Plan) -> Plan | None:
    """The same plan with an eye on one module of torch's own; None where that is not possible."""
    sites = list(plan.sites.values())
    if len(sites) != 1 or plan.alone or plan.fallback or plan.runner.by_copy or plan.hooked:
        return None
    site = sites[0]
    role = site.weight or site.bias
    if site.deferred or role is None or not role.direct:
        return None
    path = role.names[0].rpartition(".")[0]
    module = dict(plan.runner.model.named_modules()).get(path)
    if type(module) not in _LEAVES:
        return None
    return replace(plan, sites={0: replace(site, index=0)}, count=1, inner=path)


Needed = Callable[[Iterable[str], tuple[str, ...]], dict[str, frozenset[str]]]
"""From the names of parameters and the last layer's weight to the norms to find of each."""


def last_alone(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    needed: Needed,
    overrides: Mapping[str, str],
) -> Plan | None:
    """Returns the plan that watches the last layer alone, by three images through the network.

    One is run on a copy of the model, to see that it leaves the model as it was and which call
    makes the logits. It then runs on the model itself, beside another image and under the plan,
    and must have the same logits and norms. What the other has by itself the audits of the first
    batch will tell, at both of its ends. Nothing that this finds amiss is refused here but what
    one image shows.

    Args:
        model: The model.
        parameters: Its parameters by name.
        pair: Two images.
        needed: What to find.
        overrides: Methods by module or parameter name.

    Returns:
        None where the logits are not what a linear layer of torch's own returns, or where anything
        is not as it should be: the model must then be looked at as a whole.

    Raises:
        ConfigError: The model draws random numbers or changes a buffer in place.
    """
    if has_caches(model) or any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        return None
    try:
        # The second of a pair has the smaller range: a scale of the batch would be the other's.
        single = trace(Runner(model, drop_caches=False), parameters, pair[1:])
        if not single.pure or single.strays or single.draws or single.hooked:
            return None
        call = _last_call(single)
        if call is None or call.weight is None:
            return None
        last = call.weight.names
        norms = needed(last, last)
        site = site_of_rows(call, norms, overrides) if len(norms) == 1 else None
        if site is None:
            return None
        # No gradient passes the kernels that are wrong for a batch of one: it ends at the layer.
        whole = Plan({site.index: site}, single.count, norms, {}, frozenset(), last,
                     Runner(model, by_copy=False), loop="single",
                     price=price_of(single.calls), both_ends=True,
                     own_functions=False)  # fmt: skip
        plan = _inner(whole)
        right = plan is not None and _as_alone(plan, parameters, pair, single.logits, call)
        if plan is not None and right:
            refuse_other_branch(plan.runner, parameters, pair[1:], single.logits)
    except (UncopyableModelError, StrayParameterError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return None
    return plan if right else None


def _last_call(single: Trace) -> Call | None:
    """The call that makes the logits, of a linear layer that makes nothing else; or None."""
    call = single.head
    if call is None or call.function is not F.linear or call.x is None or call.x.ndim != 2:
        return None
    role = call.weight
    if role is None or not role.direct or set(role.names) & single.unknown:
        return None
    others = (r for c in single.calls if c is not call for r in (c.weight, c.bias) if r)
    return None if any(set(role.names) & set(other.names) for other in others) else call


def _as_alone(
    plan: Plan, parameters: Mapping[str, Tensor], pair: Tensor, logits: Tensor, call: Call
) -> bool:
    """Whether the second image has beside the first, under the plan, what it has by itself.

    Args:
        plan: The plan.
        parameters: The model's parameters by name.
        pair: The two images.
        logits: Those of the second by itself, ``[1, C]``.
        call: The call that made them.
    """
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    direction = direction.to(logits.device, logits.dtype)
    assert call.x is not None
    assert call.operation.weight is not None
    weight = call.operation.weight.detach().requires_grad_()
    with torch.enable_grad():
        alone = F.linear(call.x.detach(), weight)
    (gradient,) = pull_back(alone, [weight], direction.to(alone.dtype))
    assert gradient is not None
    (name,) = plan.needed
    exact = {name: reduce_gradient(gradient[None].clone(), ALL_NORMS)}
    try:
        together, collector, anchor, stand_ins = run_sites(plan, parameters, pair)
        if together.shape != (2, logits.shape[1]):
            return False
        both = torch.cat([direction, direction])
        partials, reached = backward(plan, together, both, collector, anchor, stand_ins)
    except (ForwardChangedError, *BROKEN) as error:
        if is_out_of_memory(error):
            raise
        return False
    found = {name: {norm: rows[1:] for norm, rows in partial.items()}
             for name, partial in partials.items()}  # fmt: skip
    wrong = disagreeing(found, exact, plan.needed, logits)
    return not (wrong or reached) and near(together[1:], logits, ROUNDING)
