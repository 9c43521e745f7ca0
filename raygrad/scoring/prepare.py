"""Prepares a model for scoring: which call gives which parameter's norms, and by what method."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.collect import Site
from raygrad.scoring.columns import norms_needed, split_column
from raygrad.scoring.cost import CPU, DeviceClass, Method, cheapest, device_class
from raygrad.scoring.last_layer import find_last_layer, named_last_layer
from raygrad.scoring.layout import find_layout
from raygrad.scoring.narrow import narrowed
from raygrad.scoring.plan import Plan
from raygrad.scoring.probes import is_channels_last, probe_pair
from raygrad.scoring.reductions import Partial, combine
from raygrad.scoring.trace import Call, Role
from raygrad.scoring.trial import Trial, same_calls, try_model
from raygrad.scoring.verify import ALL_NORMS, Reference, check_formulas, choose_fallback, near


def prepare(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    columns: tuple[str, ...],
    last_layer: str | None,
    overrides: Mapping[str, str],
    trainable: frozenset[str] = frozenset(),
    *,
    alone: bool = False,
) -> Plan:
    """Traces a model and decides how each parameter's norms are found.

    The model runs on one example and on two, to see where the batch is in every activation, and
    every formula is then checked, parameter by parameter and norm by norm, against ordinary
    autograd on single examples: what disagrees (a call whose rows mix, an alias that an in-place
    addition changes) goes to the fallback, not into the scores.

    Args:
        model: The classifier.
        parameters: Its parameters by name, detached.
        images: A batch; two of its examples are used.
        columns: Gradient-norm columns.
        last_layer: The last layer's module as the user named it, or None to find it.
        overrides: Methods by module or parameter name.
        trainable: The parameters that require a gradient, where a column asks for them.
        alone: Whether it is known that the calls depend on the images.

    Raises:
        ConfigError: The model cannot have per-example gradients, a name is unknown, or an
            override is not a method of its layer.
    """
    refuse_modules(model)
    pair = probe_pair(images)
    only_last = last_layer is None and all(
        split_column(column)[1] == "last_layer_weights" for column in columns
    )
    trial = try_model(model, parameters, pair, only_last=only_last)
    last = None if last_layer is None else named_last_layer(model, last_layer)
    asked = _Asked(columns, last, overrides, trainable)
    layouts = [False]
    if not (alone or trial.varies) and _may_be_channels_last(model, pair):
        layouts = [True, False]
    if only_last and not (alone or trial.varies) and layouts == [False]:
        quick = _last_alone(trial, parameters, pair, asked)
        if quick is not None:
            return quick
    for channels_last in layouts:
        plan = _plan_for(trial, parameters, pair, asked, alone, channels_last)
        if plan is not None:
            return plan
    raise AssertionError("the caller's own layout is always taken")


@dataclass(frozen=True)
class _Asked:
    """What the user wants of a plan."""

    columns: tuple[str, ...]
    last: tuple[str, ...] | None
    overrides: Mapping[str, str]
    trainable: frozenset[str]

    def needed(self, names: Iterable[str], last: tuple[str, ...]) -> dict[str, frozenset[str]]:
        """The norms to find, for each parameter of which any is wanted."""
        found = {
            name: norms_needed(
                self.columns, name, name if name in last else None, trainable=name in self.trainable
            )
            for name in names
        }
        return {name: norms for name, norms in found.items() if norms}


def _may_be_channels_last(model: nn.Module, pair: Tensor) -> bool:
    """Whether convolutions and pooling may run faster in the channels-last layout.

    On a CPU pooling is several times faster so, and a patch's rows are runs of memory.
    """
    on = device_class(pair.device.type)
    if pair.ndim != 4 or on is not CPU or is_channels_last(pair):
        return False
    # Patches that do not overlap are one product, in any layout.
    return any(
        isinstance(module, nn.Conv2d) and module.kernel_size != module.stride
        for module in model.modules()
    )


def _last_alone(
    trial: Trial, parameters: Mapping[str, Tensor], pair: Tensor, asked: _Asked
) -> Plan | None:
    """The plan that watches the last layer alone; None where only a whole pass can tell."""
    reference, single = trial.reference, trial.single
    needed = asked.needed(reference.asked, reference.last or ())
    unknown = single.unknown | trial.double.unknown
    sites = _sites(single.calls, trial.double.calls, unknown, needed, asked.overrides)
    plan = Plan(sites, single.count, needed, {}, reference.unused, reference.last, trial.runner,
                hooked=single.hooked,
                never_one=single.normalises and trial.loop == "loop")  # fmt: skip
    plan = narrowed(plan, parameters, pair, reference)
    return None if plan.inner is None else plan


def _plan_for(
    trial: Trial,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    asked: _Asked,
    alone: bool,
    channels_last: bool,
) -> Plan | None:
    """The plan for images in one layout; None where channels-last is not for this model."""
    reference, runner = trial.reference, trial.runner
    if channels_last:
        pair = pair.to(memory_format=torch.channels_last)
        try:
            double, single = trial.traces(parameters, pair)
        except RuntimeError:
            # A view that only the plain layout has.
            return None
        if not near(double.logits, reference.logits, TIGHT):
            return None
    else:
        double, single = trial.double, trial.single
    alone = alone or not same_calls(double, single)
    every = dict.fromkeys(sorted(reference.asked), ALL_NORMS)
    unused = reference.unused
    unknown = single.unknown | double.unknown
    sites = {} if alone else _sites(single.calls, double.calls, unknown, every, {})
    unknown |= _left_out(single.calls, sites)
    seen = {name for site in sites.values() for role in (site.weight, site.bias) if role
            for name in role.names}  # fmt: skip
    unknown = (unknown | (reference.asked - seen - unused)) & reference.asked
    fallback = dict.fromkeys(sorted(unknown - unused), "loop")
    plan = Plan(sites, single.count, every, fallback, unused, None, runner,
                channels_last=channels_last, hooked=single.hooked)  # fmt: skip
    last = asked.last
    candidates: tuple[str, ...] = ()
    if alone:
        wrong = set(reference.asked)
        last = last or reference.last
    else:
        wrong, logits, found = check_formulas(plan, parameters, pair, reference)
        if channels_last and not _as_exact(found, wrong, reference, logits):
            return None
        if last is None:
            last, candidates = find_last_layer(logits)
            last = last or (reference.last if not candidates else None)
    unknown = (unknown | wrong) - unused
    needed = asked.needed(parameters, last or ())
    left = {name: norms for name, norms in needed.items() if name in unknown}
    if alone:
        # Other images may use what these did not.
        fallback, unused, sites = dict.fromkeys(needed, trial.loop), frozenset(), {}
    else:
        fallback = choose_fallback(runner, parameters, pair, reference, left)
        fallback = {n: trial.loop if how == "loop" else how for n, how in fallback.items()}
        wanted = {name: norms for name, norms in needed.items() if name not in unused}
        sites = _sites(single.calls, double.calls, unknown, wanted, asked.overrides)
    plan = Plan(sites, single.count, needed, fallback, unused, last, runner, alone,
                channels_last, trial.loop, single.hooked,
                single.normalises and trial.loop == "loop", candidates=candidates)  # fmt: skip
    return narrowed(plan, parameters, pair, reference)


TIGHT = 1e-5
"""How far logits in another layout may be from those in the caller's, relative to the largest."""


def _as_exact(
    found: Mapping[str, Partial], wrong: set[str], reference: Reference, logits: Tensor
) -> bool:
    """Whether another layout gives the logits and norms of the caller's, closer than any check."""
    if not near(logits, reference.logits, TIGHT):
        return False
    names = [name for name in found if name in reference.partials and name not in wrong]
    if not names:
        return False
    for norm in ALL_NORMS:
        ours = combine([found[name] for name in names], norm)
        theirs = combine([reference.partials[name] for name in names], norm)
        if not near(ours / theirs, torch.ones_like(ours), 5 * TIGHT):
            return False
    return True


def refuse_modules(model: nn.Module) -> None:
    """Refuses modules in whose present mode no example has a gradient of its own.

    Raises:
        ConfigError: A batch normalisation or a dropout is in training mode.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ConfigError(
                f"every parameter must have a shape, got the lazy {name!r}, which waits for a "
                "first image. Run the model once before it is scored."
            )
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
    if layout is None and one.x is not None and not bool(one.y.any()):
        # An output that is all zero (a scale that starts at zero) is laid out as its input.
        assert two.x is not None
        layout = find_layout(one.x, two.x)
    if layout is None:
        return None
    operation = one.operation
    if not two.operation.fits(layout, two.y):
        # A tensor made of parameters with a copy for each image: only two show which dimension.
        return None
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
        now = now and all(uses[name] == 1 and name not in indirect for name in role.names)  # type: ignore[union-attr]  # roles are known
        norms.append(needed[role.names[0]] if now and role else frozenset())
        deferred = deferred or (want and not now)
    x = None if one.x is None else layout.split(one.x)
    methods = operation.methods(x, layout.split(one.y), norms[0] or ALL_NORMS)  # type: ignore[arg-type]  # None where it expands
    on = device_class(one.y.device.type)
    method = _choose(methods, one.weight, overrides, on) if norms[0] else Method("sum", 0.0)
    return Site(
        one.index, one.function, operation.kind, one.swapped, layout, one.weight, one.bias, method,
        norms[0], norms[1], deferred,
    )  # fmt: skip


def _choose(
    methods: list[Method], role: Role | None, overrides: Mapping[str, str], on: DeviceClass
) -> Method:
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
    return cheapest(methods, on)


def _left_out(calls: list[Call], sites: Mapping[int, Site]) -> set[str]:
    """Parameters of calls that did not become sites: all their norms go to the fallback."""
    names: set[str] = set()
    for call in calls:
        if call.index not in sites:
            for role in (call.weight, call.bias):
                names.update(role.names if role else ())
    return names
