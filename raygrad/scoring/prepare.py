"""Prepares a model for scoring: which call gives which parameter's norms, and by what method."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.collect import Site
from raygrad.scoring.columns import norms_needed
from raygrad.scoring.cost import Method, cheapest
from raygrad.scoring.last_layer import find_last_layer, named_last_layer
from raygrad.scoring.layout import find_layout
from raygrad.scoring.plan import Plan
from raygrad.scoring.swapping import functional_call
from raygrad.scoring.trace import Call, Role, Trace
from raygrad.scoring.verify import check_formulas, choose_fallback, near, single_reference

ALL_NORMS = frozenset(["l1", "l2", "linf"])


def prepare(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    columns: tuple[str, ...],
    last_layer: str | None,
    overrides: Mapping[str, str],
    trainable: frozenset[str] = frozenset(),
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
        trainable: The parameters that require a gradient, where a column asks for them.

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
    reference, cotangent, alone = single_reference(model, parameters, pair)
    with torch.no_grad():
        together = functional_call(model, dict(parameters), (pair,))
    mixed = not steady or not near(together, alone)
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
        wrong, logits = check_formulas(plan, model, parameters, pair, cotangent, reference, unknown)
    unknown = (unknown | wrong) - unused
    fallback = choose_fallback(model, parameters, pair, cotangent, reference, unknown)
    last, candidates = (
        find_last_layer(logits) if last_layer is None else (named_last_layer(model, last_layer), ())
    )
    names = last or ()
    needed = {
        name: norms_needed(
            columns, name, name if name in names else None, trainable=name in trainable
        )
        for name in parameters
    }
    needed = {name: norms for name, norms in needed.items() if norms and name not in unused}
    if not mixed:
        sites = _sites(single.calls, double.calls, set(fallback), needed, overrides)
    fallback = {name: method for name, method in fallback.items() if name in needed}
    return Plan(sites, single.count, needed, fallback, unused, last, mixed, candidates)


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
    """Two different examples, laid out as the images: the first, and itself shifted by a place."""
    first = images[:1]
    pair = torch.cat([first, torch.roll(first, 1, -1) if first.ndim > 1 else first])
    if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last):
        return pair.to(memory_format=torch.channels_last)
    return pair


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
