"""Watches one module alone, where a plan has one formula: all else runs as torch runs it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from raygrad.scoring.apart import ROUNDING
from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.plan import Plan
from raygrad.scoring.running import Runner, UncopyableModelError, has_caches
from raygrad.scoring.sites import price_of, site_of_rows
from raygrad.scoring.strays import StrayParameterError
from raygrad.scoring.trace import Call, Trace
from raygrad.scoring.trial import trace
from raygrad.scoring.verify import Reference, check_formulas, near, single_reference

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


Needed = Callable[[Iterable[str], tuple[str, ...]], dict[str, frozenset[str]]]
"""From the names of parameters and the last layer's weight to the norms to find of each."""


def last_alone(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    needed: Needed,
    overrides: Mapping[str, str],
) -> Plan | None:
    """Returns the plan that watches the last layer alone, by five images through the network.

    One is run on a copy of the model, to see that it leaves the model as it was and which call is
    the last layer's; each alone is the reference, whose first is also the second run of the same
    image; and the pair runs together under the plan. Nothing that this finds amiss is refused
    here but what one image shows.

    Args:
        model: The model.
        parameters: Its parameters by name.
        pair: Two images.
        needed: What to find.
        overrides: Methods by module or parameter name.

    Returns:
        None where the last layer is no module of torch's own, or where anything is not as it
        should be: the model must then be looked at as a whole.

    Raises:
        ConfigError: The model draws random numbers or changes a buffer in place, or its output is
            not logits.
    """
    if has_caches(model) or any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        return None
    try:
        single = trace(Runner(model, drop_caches=False), parameters, pair[:1])
        if not single.pure or single.strays or single.draws or single.hooked:
            return None
        runner = Runner(model, by_copy=False)
        reference = single_reference(
            runner, parameters, pair, twice=False, only_last=True, calls=single.count
        )
    except (UncopyableModelError, StrayParameterError, ForwardChangedError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return None
    last = reference.last or ()
    norms = needed(reference.asked, last)
    call = _last_call(single, reference)
    if call is None or not near(reference.logits[:1], single.logits, ROUNDING):
        return None
    site = site_of_rows(call, norms, overrides)
    if site is None:
        return None
    # No gradient passes the kernels that are wrong for a batch of one: it ends at the last layer.
    plan = Plan({site.index: site}, single.count, norms, {}, reference.unused, last, runner,
                loop="single", price=price_of(single.calls))  # fmt: skip
    plan = narrowed(plan, parameters, pair, reference)
    return None if plan.inner is None else plan


def _last_call(single: Trace, reference: Reference) -> Call | None:
    """The one call of the last layer's weight; None where there are others, or none."""
    last = set(reference.last or ())
    calls = [
        call
        for call in single.calls
        if any(set(role.names) & last for role in (call.weight, call.bias) if role)
    ]
    if last & single.unknown or len(calls) != 1 or reference.asked != last:
        return None
    return calls[0]
