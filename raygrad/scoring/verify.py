"""Checks formulas against ordinary autograd on single examples, before they are used."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.fallback import fallback_norms, gradients_of, single_run
from raygrad.scoring.graph import leaves_of, own_functions
from raygrad.scoring.labels import check_logits
from raygrad.scoring.last_layer import last_layer_in_graph
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.plan import Plan, backward, run_sites
from raygrad.scoring.reductions import Partial, reduce_gradient
from raygrad.scoring.running import Runner
from raygrad.scoring.strays import StrayParameterError, kept_from_before
from raygrad.scoring.witness import Witness

ALL_NORMS = frozenset(["l1", "l2", "linf"])

BROKEN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What parts of a model (a hook, an operator) raise where only some tensors require gradients."""


def is_half(tensor: Tensor) -> bool:
    """Whether a result was computed in half precision, in part or whole."""
    device = tensor.device.type
    return tensor.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(device)


def near(found: Tensor, exact: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether two results of the same model agree, relative to the largest value.

    What is not finite says nothing, and agrees.

    Args:
        found: What came.
        exact: What should have come, of the same shape.
        tolerance: For float32; half precision gets 0.05.
    """
    return found.shape == exact.shape and not bool(differ(found, exact, tolerance))


def differ(found: Tensor, exact: Tensor, tolerance: float = 1e-3) -> Tensor:
    """The opposite of `near` for results of one shape, on their device: a bool ``[]``."""
    difference = (found.detach().double() - exact.detach().double()).abs().max()
    scale = exact.detach().double().abs().max()
    limit = (max(tolerance, 0.05) if is_half(found) else tolerance) * scale
    return ~(difference <= limit) & scale.isfinite()


@dataclass(frozen=True)
class Reference:
    """What ordinary autograd says of single examples, each for a fixed direction at its logits.

    A fixed direction, not the loss: the loss of a well-fitted example may have no gradient to
    compare.
    """

    partials: dict[str, Partial]
    """Partial norms ``[n]`` of each parameter that the logits depend on."""
    unused: frozenset[str]
    """Parameters that no example's logits depend on."""
    cotangent: Tensor
    """The directions, ``[n, C]``."""
    logits: Tensor
    """The logits of the examples, ``[n, C]``, detached."""
    last: tuple[str, ...] | None
    """The last layer's weight as the graph of the logits shows it, where it shows one."""
    met: frozenset[str]
    """The matrices that the graph shows between the logits and the first products, and theirs."""
    asked: frozenset[str]
    """The parameters that were looked at: all of them, or the last layer's weight."""
    own_functions: bool = True
    """Whether the graph has functions with a backward of their own."""


def single_reference(
    runner: Runner,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    copies: int,
    only_last: bool = False,
    calls: int | None = None,
) -> Reference:
    """Finds the norms of each image's own gradient, and what its logits depend on.

    Args:
        runner: How the model is run.
        parameters: Its parameters by name.
        images: The examples.
        copies: Beside how many copies of itself each runs.
        only_last: Whether the last layer's weight, where the graph shows one, is enough: a
            backward pass that ends there costs next to nothing.
        calls: How many calls of functions with a formula a run must make, where each run is to be
            watched for that, and for parameters that it reaches past their stand-ins.

    Raises:
        ConfigError: The output is not logits, or depends on no parameter by autograd.
        StrayParameterError: It depends on a parameter in a way that its stand-in cannot follow.
        ForwardChangedError: A run made more calls, or fewer.
    """
    rows: dict[str, list[Partial | None]] = {name: [] for name in parameters}
    logits, directions, depends, own = [], [], False, False
    last: tuple[str, ...] | None = None
    met: frozenset[str] = frozenset()
    for index, image in enumerate(images.split(1)):
        output, leaves = _looked_over(runner, image, parameters, copies, calls)
        depends, own = depends or output.requires_grad, own or own_functions(output)
        logits.append(output[:1].detach())
        generator = torch.Generator().manual_seed(index)
        direction = torch.randn(logits[-1].shape, generator=generator).to(output.device)
        directions.append(direction)
        named = {id(leaf): name for name, leaf in leaves.items()}
        here, before = last_layer_in_graph(output, named)
        changes, last, met = index > 0 and here != last, here, met | before
        if only_last and (last is None or changes):
            return single_reference(runner, parameters, images, copies, calls=calls)
        chosen = (last or ()) if only_last else leaves
        for name, gradient in gradients_of(runner, output, direction, leaves, chosen).items():
            row = None if gradient is None else reduce_gradient(gradient[None].clone(), ALL_NORMS)
            rows[name].append(row)
    if parameters and not depends:
        raise _without_graph()
    rows = {name: found for name, found in rows.items() if found}
    unused = frozenset(name for name, found in rows.items() if all(row is None for row in found))
    zero = dict.fromkeys(ALL_NORMS, torch.zeros(1, device=images.device))
    partials = {
        name: _joined([zero if row is None else row for row in found])
        for name, found in rows.items()
        if name not in unused
    }
    asked = frozenset(rows)
    return Reference(
        partials, unused, torch.cat(directions), torch.cat(logits), last, met, asked, own
    )


def _without_graph() -> ConfigError:
    return ConfigError(
        "the logits must depend on the parameters by autograd, got a forward pass that leaves "
        "no gradient (under no_grad or inference_mode, detached, or by way of numpy). Take "
        "that out of forward."
    )


def _looked_over(
    runner: Runner, image: Tensor, parameters: Mapping[str, Tensor], copies: int, calls: int | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs one example, and sees that it makes the calls and uses the parameters that it should."""
    witness = None if calls is None else Witness(runner.model, parameters)
    output, leaves = single_run(runner, image, parameters, copies, witness)
    check_logits(output, torch.zeros(1 + copies, dtype=torch.int64))
    originals = {id(tensor): name for name, tensor in runner.model.named_parameters()}
    strays = {originals[id(leaf)] for leaf in leaves_of(output) if id(leaf) in originals}
    strays |= kept_from_before(output, leaves) | (witness.strays if witness else set())
    if strays:
        raise StrayParameterError(sorted(strays))
    if witness is not None and witness.count != calls:
        raise ForwardChangedError
    return output, leaves


def _joined(rows: list[Partial]) -> Partial:
    return {norm: torch.cat([row[norm].double() for row in rows]) for norm in ALL_NORMS}


def check_formulas(
    plan: Plan, parameters: Mapping[str, Tensor], images: Tensor, reference: Reference
) -> tuple[set[str], Tensor, dict[str, Partial]]:
    """Compares the norms by formula with the reference.

    The images run in the reverse of the reference's order: what picks rows by their values cannot
    leave both orders as they are.

    Returns:
        The parameters whose norms differ or did not come; the logits with their graph; and the
        partial norms, both in the order of the reference.
    """
    order = torch.arange(len(images) - 1, -1, -1, device=images.device)
    try:
        logits, collector, anchor, stand_ins = run_sites(plan, parameters, images[order])
        partials, reached = backward(
            plan, logits, reference.cotangent[order], collector, anchor, stand_ins
        )
    except (ForwardChangedError, *BROKEN) as error:
        if is_out_of_memory(error):
            raise
        # A formula that cannot even run here is no formula: everything goes to the fallback.
        return set(parameters), reference.logits, {}
    found = {
        name: {norm: value[order] for norm, value in partial.items()}
        for name, partial in partials.items()
    }
    wrong = disagreeing(found, reference.partials, plan.needed, logits)
    return wrong | (reached - reference.unused), logits[order], found


def disagreeing(
    found: Mapping[str, Partial],
    reference: Mapping[str, Partial],
    needed: Mapping[str, frozenset[str]],
    like: Tensor,
) -> set[str]:
    """Names the parameters of which any norm is not that of the reference, up to rounding.

    Args:
        found: Partial norms by parameter.
        reference: What they should be.
        needed: The norms to compare, by parameter.
        like: A tensor that shows in what precision the model computes.
    """
    totals = {
        norm: torch.stack([norm_of(partial, norm) for partial in reference.values()]).amax(0)
        for norm in ALL_NORMS
        if reference
    }
    relative, absolute = (0.1, 1e-3) if is_half(like) else (2e-3, 1e-4)
    wrong = set()
    for name, exact in reference.items():
        if name not in needed:
            continue
        for norm in needed[name]:
            if name not in found or norm not in found[name]:
                wrong.add(name)
                break
            right = norm_of(exact, norm)
            difference = (norm_of(found[name], norm) - right).abs()
            limit = relative * right + absolute * totals[norm]
            if not bool((difference <= limit).logical_or(~right.isfinite()).all()):
                wrong.add(name)
                break
    return wrong


def norm_of(partial: Partial, norm: str) -> Tensor:
    """The norm that a partial norm is part of, float64."""
    value = partial[norm].double()
    return value.clamp(min=0).sqrt() if norm == "l2" else value


def choose_fallback(
    runner: Runner,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    reference: Reference,
    needed: Mapping[str, frozenset[str]],
) -> dict[str, str]:
    """The fallback of each of the parameters: vmap where it works and is right, else the loop."""
    if not needed:
        return {}
    expected = {n: reference.partials[n] for n in needed if n in reference.partials}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            partials = fallback_norms(
                runner, images, reference.cotangent, parameters, needed, "vmap"
            )
    except BROKEN as error:
        if is_out_of_memory(error):
            raise
        # Data-dependent control flow, an operator without a batching rule, or a part of the model
        # that cannot do without gradients of all else.
        return dict.fromkeys(needed, "loop")
    wrong = disagreeing(partials, expected, needed, reference.logits)
    return dict.fromkeys(needed, "loop" if wrong else "vmap")
