"""How every parameter's norms are found, and the two passes that find them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrad.scoring.collect import Collector, Site, Watch
from raygrad.scoring.reductions import Partial
from raygrad.scoring.swapping import functional_call


@dataclass(frozen=True)
class Plan:
    """How every parameter's norms are found, for one model, input shape and set of columns."""

    sites: Mapping[int, Site]
    """Calls with a formula, by their index in the forward pass."""
    count: int
    """How many calls the forward pass makes of functions that may have a formula."""
    needed: Mapping[str, frozenset[str]]
    """The norms to find, for each parameter that any column wants."""
    fallback: Mapping[str, str]
    """Parameters without a formula: ``vmap`` or ``loop``."""
    unused: frozenset[str]
    """Parameters that the logits do not depend on: their gradient is zero."""
    last_layer: tuple[str, ...] | None
    """The last layer's weight, as names of parameters; None where several layers could be it."""
    mixed: bool = False
    """Whether the logits of an example depend on the batch: examples must then run alone."""
    candidates: tuple[str, ...] = ()
    """The weights that could be the last layer's, where there are several."""

    @property
    def deferred(self) -> frozenset[str]:
        """Parameters whose contributions are summed after the backward pass."""
        names: set[str] = set()
        for site in self.sites.values():
            if site.deferred:
                for role in (site.weight, site.bias):
                    names.update(role.names if role is not None else ())
        direct = {
            role.names[0]
            for site in self.sites.values()
            for role, norms in ((site.weight, site.weight_norms), (site.bias, site.bias_norms))
            if role is not None and norms
        }
        return frozenset(names & set(self.needed) - set(self.fallback) - direct)


def run_sites(
    plan: Plan, model: nn.Module, parameters: Mapping[str, Tensor], images: Tensor
) -> tuple[Tensor, Collector, Tensor, dict[str, Tensor]]:
    """Runs the forward pass under a plan.

    Returns:
        Logits with their graph, the collector, the anchor, and the tensors that stood for the
        parameters.
    """
    deferred = plan.deferred
    sources = {
        name
        for site in plan.sites.values()
        for role in (site.weight, site.bias)
        if role is not None and not role.direct
        for name in role.names
    } & deferred
    stand_ins = {
        name: tensor.detach().requires_grad_() if name in sources else tensor
        for name, tensor in parameters.items()
    }
    anchor = torch.zeros((), device=images.device, requires_grad=True)
    collector = Collector()
    watch = Watch(plan.sites, plan.count, collector, anchor)
    with torch.enable_grad(), watch:
        logits = functional_call(model, stand_ins, (images,))
    watch.finish()
    return logits, collector, anchor, stand_ins


def backward(
    plan: Plan,
    logits: Tensor,
    cotangent: Tensor,
    collector: Collector,
    anchor: Tensor,
    stand_ins: Mapping[str, Tensor],
) -> dict[str, Partial]:
    """Carries the direction at the logits back through the sites, which collect on the way."""
    with torch.autocast(logits.device.type, enabled=False):
        if logits.requires_grad:
            torch.autograd.grad(
                logits, anchor, cotangent.to(logits.dtype), allow_unused=True,
                retain_graph=bool(collector_needs_graph(plan)),
            )  # fmt: skip
        with torch.no_grad():
            collector.resolve(stand_ins, {name: plan.needed[name] for name in plan.deferred})
    return collector.partials


def collector_needs_graph(plan: Plan) -> bool:
    """Whether any parameter's gradient is carried back through what was computed from it."""
    return any(
        role is not None and not role.direct and site.deferred
        for site in plan.sites.values()
        for role in (site.weight, site.bias)
    )
