"""Checks formulas against ordinary autograd on single examples, before they are used."""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.fallback import fallback_norms, single_gradients
from raygrad.scoring.labels import check_logits
from raygrad.scoring.plan import Plan, backward, run_sites
from raygrad.scoring.reductions import Partial
from raygrad.scoring.swapping import functional_call


def near(found: Tensor, exact: Tensor) -> bool:
    """Whether two results of the same model agree up to rounding."""
    half = found.dtype in (torch.float16, torch.bfloat16)
    difference = (found.double() - exact.double()).abs().max()
    scale = exact.double().abs().max()
    return bool(difference <= (0.1 if half else 1e-2) * scale) or not bool(scale.isfinite())


def single_reference(
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


def check_formulas(
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


def choose_fallback(
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
