"""Prepares a model for scoring: which call gives which parameter's norms, and by what method."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.collect import Site
from raygrad.scoring.columns import norms_needed, split_column
from raygrad.scoring.cost import CPU, device_class
from raygrad.scoring.fallback import hooks_backward
from raygrad.scoring.last_layer import affine, agreed, find_last_layer, named_last_layer
from raygrad.scoring.narrow import last_alone, narrowed
from raygrad.scoring.plan import Plan
from raygrad.scoring.probes import is_channels_last, probe_pair
from raygrad.scoring.reductions import Partial, combine
from raygrad.scoring.sites import left_out, price_of, sites_of
from raygrad.scoring.ties import tied_parameters
from raygrad.scoring.trace import Trace
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
    last = None if last_layer is None else named_last_layer(model, last_layer)
    asked = _Asked(columns, last, overrides, trainable)
    faster = not alone and _may_be_channels_last(model, pair)
    if only_last and not (alone or faster):
        quick = last_alone(model, parameters, pair, asked.needed, overrides)
        if quick is not None:
            return quick
    trial = try_model(model, parameters, pair, only_last=only_last)
    layouts = [True, False] if faster and not trial.varies else [False]
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


def _tentative(
    trial: Trial, double: Trace, single: Trace, alone: bool, channels_last: bool
) -> tuple[Plan, set[str]]:
    """The plan for all norms of all parameters, not yet compared; and those without a formula."""
    reference = trial.reference
    every = dict.fromkeys(sorted(reference.asked), ALL_NORMS)
    unused = reference.unused
    unknown = single.unknown | double.unknown
    sites = {} if alone else sites_of(single.calls, double.calls, unknown, every, {})
    unknown |= left_out(single.calls, sites)
    unknown = (unknown | (reference.asked - _scored_by(sites) - unused)) & reference.asked
    fallback = dict.fromkeys(sorted(unknown - unused), "loop")
    plan = Plan(sites, single.count, every, fallback, unused, None, trial.runner,
                channels_last=channels_last, hooked=single.hooked)  # fmt: skip
    return plan, unknown


def _plan_for(
    trial: Trial,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    asked: _Asked,
    alone: bool,
    channels_last: bool,
) -> Plan | None:
    """The plan for images in one layout; None where channels-last is not for this model."""
    if alone:
        # Every example then runs in a loop: of the kind that is right.
        trial = trial.with_copies(parameters, pair)
    reference, runner = trial.reference, trial.runner
    traces = _traced(trial, parameters, pair) if channels_last else (trial.double, trial.single)
    if traces is None:
        return None
    double, single = traces
    pair = pair.to(memory_format=torch.channels_last) if channels_last else pair
    alone = alone or not same_calls(double, single)
    plan, unknown = _tentative(trial, double, single, alone, channels_last)
    sites, unused = plan.sites, plan.unused
    last = asked.last
    candidates: tuple[str, ...] = ()
    if alone:
        wrong = set(reference.asked)
        last = last or reference.last
    else:
        wrong, logits, found = check_formulas(plan, parameters, pair, reference)
        if wrong and not trial.beside:
            copied = trial.with_copies(parameters, pair)
            return _plan_for(copied, parameters, pair, asked, alone, channels_last)
        copies = int(trial.beside and trial.loop == "loop")
        if wrong:
            wrong -= tied_parameters(plan, parameters, pair, reference, copies, found, wrong)
        if channels_last and not _as_exact(found, wrong, reference, logits):
            return None
        if last is None:
            last, candidates = agreed(
                find_last_layer(logits), (reference.last, reference.met), affine(sites) - wrong
            )
    unknown = (unknown | wrong) - unused
    needed = asked.needed(parameters, last or ())
    left = {name: norms for name, norms in needed.items() if name in unknown}
    # A hook on a module's backward pass must see all gradients of it, or none of the formulas.
    alone = alone or bool(left and hooks_backward(runner.model))
    if alone:
        # Other images may use what these did not.
        fallback, unused, sites = dict.fromkeys(needed, trial.loop), frozenset(), {}
    else:
        fallback = _fallback(trial, parameters, pair, left)
        wanted = {name: norms for name, norms in needed.items() if name not in unused}
        sites = sites_of(single.calls, double.calls, unknown, wanted, asked.overrides)
    plan = Plan(sites, single.count, needed, fallback, unused, last, runner, alone,
                channels_last, trial.loop, single.hooked,
                single.normalises and trial.loop == "loop", price=price_of(single.calls),
                own_functions=reference.own_functions, candidates=candidates)  # fmt: skip
    return narrowed(plan, parameters, pair, reference)


def _scored_by(sites: Mapping[int, Site]) -> set[str]:
    """The parameters that formulas serve."""
    roles = [role for site in sites.values() for role in (site.weight, site.bias) if role]
    return {name for role in roles for name in role.names}


def _fallback(
    trial: Trial, parameters: Mapping[str, Tensor], pair: Tensor, left: dict[str, frozenset[str]]
) -> dict[str, str]:
    """How the parameters that no formula serves are scored, by name."""
    chosen = choose_fallback(trial.runner, parameters, pair, trial.reference, left)
    return {name: trial.loop if how == "loop" else how for name, how in chosen.items()}


def _traced(
    trial: Trial, parameters: Mapping[str, Tensor], pair: Tensor
) -> tuple[Trace, Trace] | None:
    """The traces in the channels-last layout; None where it is not for this model."""
    try:
        traces = trial.traces(parameters, pair.to(memory_format=torch.channels_last))
    except RuntimeError:
        # A view that only the plain layout has.
        return None
    return traces if near(traces[0].logits, trial.reference.logits, TIGHT) else None


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
        ConfigError: A batch normalisation or a dropout is in training mode, or a parameter is lazy
            or has a hook on its gradient.
    """
    for name, module in model.named_modules():
        for own, parameter in module._parameters.items():
            _refuse_parameter(f"{name}.{own}".lstrip("."), parameter)
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


def _refuse_parameter(name: str, parameter: nn.Parameter | None) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ConfigError(
            f"every parameter must have a shape, got the lazy {name!r}, which waits for a "
            "first image. Run the model once before it is scored."
        )
    if parameter is not None and parameter._backward_hooks:
        raise ConfigError(
            f"no parameter may have a hook on its gradient, got one on {name!r}, which can "
            "change the gradient behind the norms. Remove it, or score copy.deepcopy(model), "
            "which has none."
        )
