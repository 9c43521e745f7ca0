"""How every parameter's norms are found, and the two passes that find them."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raygrad.scoring.collect import Collector, Site, Watch, within
from raygrad.scoring.padding import padded_as_with_gradients
from raygrad.scoring.pulling import pull_back
from raygrad.scoring.reductions import Partial
from raygrad.scoring.running import Runner
from raygrad.scoring.strays import refuse_kept, stand_in


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
    """Parameters that the logits did not depend on when the plan was made; every pass looks."""
    last_layer: tuple[str, ...] | None
    """The last layer's weight, as names of parameters; None where several layers could be it."""
    runner: Runner
    """How the model is run."""
    alone: bool = False
    """Whether the calls depend on the images: each example must then run by itself."""
    channels_last: bool = False
    """Whether images are put into the channels-last layout."""
    loop: str = "loop"
    """The kind of loop over single examples that is right for this model: ``loop``, ``single``."""
    hooked: bool = False
    """Whether the model hangs hooks on activations, which must all require gradients then."""
    never_one: bool = False
    """Whether a batch of one image is run beside its copy: see ``single_run``."""
    inner: str | None = None
    """The module that alone is watched; None where the whole forward pass is."""
    price: float = 1.0
    """What an image costs in a pass of its own, in images of a large batch."""
    both_ends: bool = False
    """Whether both ends of the first batch are audited: of the two images that the model was tried
    on, only one was compared with itself alone."""
    own_functions: bool = True
    """Whether functions with a backward of their own may run parts of the model there."""
    candidates: tuple[str, ...] = ()
    """The weights that could be the last layer's, where there are several."""

    def in_float64(self) -> "Plan":
        """The same plan for parameters and images that are given in float64."""
        return replace(self, runner=replace(self.runner, wide=True))

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

    @property
    def followed(self) -> frozenset[str]:
        """Parameters that no path may reach but the sites: those with formulas, and the unused."""
        return frozenset(set(self.needed) - set(self.fallback))


def run_sites(
    plan: Plan, parameters: Mapping[str, Tensor], images: Tensor
) -> tuple[Tensor, Collector, Tensor, dict[str, Tensor]]:
    """Runs the forward pass under a plan.

    Returns:
        Logits with their graph, the collector, the anchor, and the tensors that stood for the
        parameters.
    """
    followed = plan.followed
    stand_ins = {
        name: stand_in(name, tensor) if name in followed else tensor
        for name, tensor in parameters.items()
    }
    anchor = torch.zeros((), device=images.device, requires_grad=True)
    collector = Collector()
    watch = Watch(plan.sites, plan.count, collector, anchor, len(images))
    with torch.enable_grad():
        # Where hooks hang on activations, all of these must require gradients.
        grounded = anchor if plan.hooked else None
        if plan.inner is None:
            logits = plan.runner(stand_ins, images, mode=watch, anchor=grounded)
        else:
            model = plan.runner.model
            with padded_as_with_gradients(model), within(model.get_submodule(plan.inner), watch):
                logits = plan.runner(stand_ins, images)
    watch.finish()
    if plan.runner.by_copy:
        refuse_kept(logits, stand_ins)
    return logits, collector, anchor, stand_ins


def backward(
    plan: Plan,
    logits: Tensor,
    cotangent: Tensor,
    collector: Collector,
    anchor: Tensor,
    stand_ins: Mapping[str, Tensor],
) -> tuple[dict[str, Partial], set[str]]:
    """Carries the direction at the logits back through the sites, which collect on the way.

    Returns:
        The partial norms by parameter; and the parameters that the logits depend on by a way that
        the plan does not know, whose norms are therefore not among them.
    """
    reached: set[str] = set()
    standing = plan.runner.standing(stand_ins) if plan.own_functions else nullcontext()
    with torch.autocast(logits.device.type, enabled=False), standing:
        if logits.requires_grad:
            # Sites give no gradient to a parameter, so whatever arrives came by another way.
            leaves = {name: stand_ins[name] for name in sorted(plan.followed)}
            found = pull_back(
                logits,
                [anchor, *leaves.values()],
                cotangent.to(logits.dtype),
                retain_graph=collector_needs_graph(plan),
            )
            reached = {n for n, g in zip(leaves, found[1:], strict=True) if g is not None}
        with torch.no_grad():
            collector.resolve(stand_ins, {name: plan.needed[name] for name in plan.deferred})
    return {n: p for n, p in collector.partials.items() if n not in reached}, reached


def collector_needs_graph(plan: Plan) -> bool:
    """Whether any parameter's gradient is carried back through what was computed from it."""
    return any(
        role is not None and not role.direct and site.deferred
        for site in plan.sites.values()
        for role in (site.weight, site.bias)
    )
