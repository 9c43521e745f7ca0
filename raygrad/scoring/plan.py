"""Prepares a model for scoring: which call gives which parameter's norms, and by what method."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raygrad.errors import ConfigError
from raygrad.scoring.collect import Collector, ForwardChangedError, Site, Watch
from raygrad.scoring.columns import norms_needed
from raygrad.scoring.cost import Method, cheapest
from raygrad.scoring.fallback import fallback_norms, single_gradients
from raygrad.scoring.last_layer import find_last_layer, named_last_layer
from raygrad.scoring.layout import find_layout
from raygrad.scoring.reductions import Partial
from raygrad.scoring.scores import check_logits
from raygrad.scoring.trace import Call, Role, Trace

ALL_NORMS = frozenset(["l1", "l2", "linf"])


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


def prepare(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    columns: tuple[str, ...],
    last_layer: str | None,
    overrides: Mapping[str, str],
) -> Plan:
    """Traces a model and decides how each parameter's norms are found.

    The model runs on one example and on two, to see where the batch is in every activation, and
    every formula is then checked, parameter by parameter, against ordinary autograd on single
    examples: what disagrees (a call whose rows mix, an alias that an in-place addition changes)
    goes to the fallback, not into the scores.

    Args:
        model: The classifier.
        parameters: Its parameters by name, detached.
        images: A batch; only its first example is used.
        columns: Gradient-norm columns.
        last_layer: The last layer's module as the user named it, or None to find it.
        overrides: Methods by module or parameter name.

    Raises:
        ConfigError: The model cannot have per-example gradients, a name is unknown, or an
            override is not a method of its layer.
    """
    refuse_modules(model)
    pair = _pair(images)
    double, single = _traces(model, parameters, pair)
    steady = len(single.calls) == len(double.calls) and single.count == double.count
    steady = steady and all(a.same_as(b) for a, b in zip(single.calls, double.calls, strict=True))
    every = dict.fromkeys(parameters, ALL_NORMS)
    unknown = single.unknown | double.unknown
    reference, cotangent, alone = _reference(model, parameters, pair)
    with torch.no_grad():
        together = functional_call(model, dict(parameters), (pair,))
    mixed = not steady or not _near(together, alone)
    sites = {} if mixed else _sites(single.calls, double.calls, unknown, every, {})
    unknown |= _left_out(single.calls, sites)
    unused = frozenset(name for name, rows in reference.items() if rows is None)
    plan = Plan(sites, single.count, every, {}, unused, None, mixed)
    seen = {name for site in sites.values() for role in (site.weight, site.bias) if role
            for name in role.names}  # fmt: skip
    unknown |= set(parameters) - seen - unused
    if mixed:
        wrong, logits = set(parameters), alone
    else:
        wrong, logits = _check(plan, model, parameters, pair, cotangent, reference, unknown)
    unknown = (unknown | wrong) - unused
    fallback = _fallback(model, parameters, pair, cotangent, reference, unknown)
    last, candidates = (
        find_last_layer(logits) if last_layer is None else (named_last_layer(model, last_layer), ())
    )
    names = last or ()
    needed = {name: norms_needed(columns, name, name if name in names else None)
              for name in parameters}  # fmt: skip
    needed = {name: norms for name, norms in needed.items() if norms and name not in unused}
    if not mixed:
        sites = _sites(single.calls, double.calls, set(fallback), needed, overrides)
    fallback = {name: method for name, method in fallback.items() if name in needed}
    return Plan(sites, single.count, needed, fallback, unused, last, mixed, candidates)


def _near(found: Tensor, exact: Tensor) -> bool:
    """Whether two results of the same model agree up to rounding."""
    half = found.dtype in (torch.float16, torch.bfloat16)
    difference = (found.double() - exact.double()).abs().max()
    scale = exact.double().abs().max()
    return bool(difference <= (0.1 if half else 1e-2) * scale) or not bool(scale.isfinite())


def refuse_modules(model: nn.Module) -> None:
    """Refuses modules in whose present mode no example has a gradient of its own.

    Raises:
        ConfigError: A batch normalisation or a dropout is in training mode.
    """
    for name, module in model.named_modules():
        if not module.training:
            continue
        label = f"module {name!r} ({type(module).__name__})"
        if isinstance(module, nn.modules.batchnorm._NormBase) and (
            not isinstance(module, nn.modules.instancenorm._InstanceNorm)
            or module.track_running_stats
        ):
            raise ConfigError(
                "normalisation must use its running statistics, got training mode in "
                f"{label}, where examples change each other's gradients. Call model.eval()."
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise ConfigError(
                f"dropout must be off, got training mode with p={module.p} in {label}, where the "
                "gradient is random. Call model.eval()."
            )


def _pair(images: Tensor) -> Tensor:
    """Two different examples: the first image, and itself shifted by one place."""
    first = images[:1]
    return torch.cat([first, torch.roll(first, 1, -1) if first.ndim > 1 else first])


def _traces(
    model: nn.Module, parameters: Mapping[str, Tensor], pair: Tensor
) -> tuple[Trace, Trace]:
    """Traces of the forward pass on two examples and on the first of them."""
    traces: list[Trace] = []
    for images in (pair, pair[:1]):
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        versions = {name: buffer._version for name, buffer in buffers.items()}
        # As Watch will see it: gradients on, but no parameter that requires one.
        trace = Trace(model, parameters, images, traces[0].expansions if traces else None)
        with torch.enable_grad(), trace:
            functional_call(model, {**parameters, **buffers}, (images,))
        for name, buffer in buffers.items():
            if buffer._version != versions[name]:
                raise ConfigError(
                    f"the forward pass must leave the model as it is, got a change of {name!r}. "
                    "Call model.eval()."
                )
        traces.append(trace)
    return traces[0], traces[1]


def _sites(
    single: list[Call],
    double: list[Call],
    unknown: set[str],
    needed: Mapping[str, frozenset[str]],
    overrides: Mapping[str, str],
) -> dict[int, Site]:
    """The sites of the calls whose parameters are wanted and have a formula."""
    uses: dict[str, int] = {}
    indirect: set[str] = set()
    for call in single:
        for role in (call.weight, call.bias):
            for name in role.names if role else ():
                uses[name] = uses.get(name, 0) + 1
            if role and not role.direct:
                indirect.update(role.names)
    sites = {}
    for one, two in zip(single, double, strict=True):
        wanted = [_wanted(role, needed, unknown) for role in (one.weight, one.bias)]
        if not any(wanted):
            continue
        site = _site(one, two, wanted, uses, indirect, needed, overrides)
        if site is not None:
            sites[one.index] = site
    return sites


def _wanted(role: Role | None, needed: Mapping[str, frozenset[str]], unknown: set[str]) -> bool:
    return role is not None and bool((set(role.names) & set(needed)) - unknown)


def _site(
    one: Call,
    two: Call,
    wanted: list[bool],
    uses: Mapping[str, int],
    indirect: set[str],
    needed: Mapping[str, frozenset[str]],
    overrides: Mapping[str, str],
) -> Site | None:
    layout = find_layout(one.y, two.y)
    if layout is None:
        return None
    operation = one.operation
    if one.x is not None:
        assert two.x is not None
        if find_layout(one.x, two.x) != layout:
            return None
    if not operation.fits(layout, one.y):
        return None
    operation.batch_dim, operation.folded = layout.dim, layout.fold > 1
    norms: list[frozenset[str]] = []
    deferred = False
    for role, want in zip((one.weight, one.bias), wanted, strict=True):
        now = bool(role and want and role.direct)
        now = now and all(uses[name] == 1 and name not in indirect for name in role.names)  # type: ignore[union-attr]
        norms.append(needed[role.names[0]] if now and role else frozenset())
        deferred = deferred or (want and not now)
    x = None if one.x is None else layout.split(one.x)
    methods = operation.methods(x, layout.split(one.y), norms[0] or ALL_NORMS)  # type: ignore[arg-type]
    method = _choose(methods, one.weight, overrides) if norms[0] else Method("sum", 0.0)
    return Site(
        one.index, one.function, operation.kind, one.swapped, layout, one.weight, one.bias, method,
        norms[0], norms[1], deferred,
    )  # fmt: skip


def _choose(methods: list[Method], role: Role | None, overrides: Mapping[str, str]) -> Method:
    assert role is not None
    for key in (role.names[0], role.names[0].rpartition(".")[0]):
        if key in overrides:
            known = {method.name: method for method in methods}
            if overrides[key] not in known:
                raise ConfigError(
                    f"the method of {key!r} must be one of {', '.join(sorted(known))}, "
                    f"got {overrides[key]!r}. Choose one of them, or leave the choice out."
                )
            return known[overrides[key]]
    return cheapest(methods)


def _left_out(calls: list[Call], sites: Mapping[int, Site]) -> set[str]:
    """Parameters of calls that did not become sites: all their norms go to the fallback."""
    names: set[str] = set()
    for call in calls:
        if call.index not in sites:
            for role in (call.weight, call.bias):
                names.update(role.names if role else ())
    return names


def _reference(
    model: nn.Module, parameters: Mapping[str, Tensor], pair: Tensor
) -> tuple[dict[str, list[Tensor] | None], Tensor, Tensor]:
    """Single-example gradients of the pair for a fixed direction at the logits, by parameter.

    A fixed direction, not the loss: the loss of a well-fitted example may have no gradient to
    compare.

    Returns:
        The gradients, the direction and the logits of the examples run alone.
    """
    with torch.no_grad():
        rows = [functional_call(model, dict(parameters), (image,)) for image in pair.split(1)]
    for row in rows:
        check_logits(row, torch.zeros(1, dtype=torch.int64, device=pair.device))
    alone = torch.cat(rows)
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(alone.shape, generator=generator).to(alone.device)
    found: dict[str, list[Tensor] | None] = {}
    gradients = [
        single_gradients(model, image, direction, parameters, {})
        for image, direction in zip(pair.split(1), cotangent.split(1), strict=True)
    ]
    for name, parameter in parameters.items():
        both = [row[name] for row in gradients]
        unused = all(gradient is None for gradient in both)
        zero = torch.zeros_like(parameter)
        found[name] = None if unused else [zero if g is None else g for g in both]
    return found, cotangent, alone


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


def _check(
    plan: Plan,
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    cotangent: Tensor,
    reference: Mapping[str, list[Tensor] | None],
    unknown: set[str],
) -> tuple[set[str], Tensor]:
    """Returns the parameters whose norms by formula differ from the reference, and the logits."""
    try:
        logits, collector, anchor, stand_ins = run_sites(plan, model, parameters, pair)
        partials = backward(plan, logits, cotangent, collector, anchor, stand_ins)
    except (ForwardChangedError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        # A formula that cannot even run here is no formula: everything goes to the fallback.
        logits, *_ = run_sites(replace(plan, sites={}), model, parameters, pair)
        return set(parameters), logits
    expected = {name: rows for name, rows in reference.items() if rows is not None}
    return disagreeing(partials, expected, unknown), logits


def disagreeing(
    partials: Mapping[str, Partial],
    reference: Mapping[str, list[Tensor]],
    skipped: set[str],
) -> set[str]:
    """Names the parameters whose l2 norms are not those of the reference, up to rounding."""
    exact = {
        name: torch.stack([row.double().square().sum().sqrt() for row in rows])
        for name, rows in reference.items()
    }
    total = torch.stack(list(exact.values())).amax(0) if exact else torch.zeros(2)
    wrong = set()
    for name, norm in exact.items():
        if name in skipped:
            continue
        if name not in partials:
            wrong.add(name)
            continue
        half = reference[name][0].dtype in (torch.float16, torch.bfloat16)
        found = partials[name]["l2"].double().clamp(min=0).sqrt()
        tolerance = (0.1 if half or torch.is_autocast_enabled(norm.device.type) else 0.01) * norm
        if not bool(((found - norm).abs() <= tolerance + 1e-4 * total).all()):
            wrong.add(name)
    return wrong


def _fallback(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    cotangent: Tensor,
    reference: Mapping[str, list[Tensor] | None],
    names: set[str],
) -> dict[str, str]:
    """The fallback of each of the parameters: vmap where it works and is right, else the loop."""
    if not names:
        return {}
    needed = {name: frozenset(["l2"]) for name in parameters if name in names}
    expected = {name: rows for name in needed if (rows := reference[name]) is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            partials = fallback_norms(model, pair, cotangent, parameters, needed, "vmap")
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        # Data-dependent control flow, or an operator without a batching rule.
        return dict.fromkeys(needed, "loop")
    wrong = disagreeing(partials, expected, set())
    return dict.fromkeys(needed, "loop" if wrong else "vmap")
