"""Looks a plan's first batch over: every example in another order, and those that stand out alone.

The two images that a model was tried on, and one example that is audited, may all be of those that
go the usual way: where gradients are clipped for a few, where rows are put in order by a coarse
key, or where one image decides for the batch, others do not.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.apart import DEPENDS
from raygrad.scoring.audit import SHRINK, refuse_nonlinear, unlike, vanishing
from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.numerics import rounds_products
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.passes import GradNorms, Passes, bare_of
from raygrad.scoring.plan import Plan
from raygrad.scoring.running import widened
from raygrad.scoring.ties import is_tie, nudged, precision_of
from raygrad.scoring.verify import BROKEN, differ, is_half

SUSPECTS = 2
"""Examples that are compared with the plain loop, of those that are others in the other order."""

_TINY = 1e-15
"""A norm, for a direction of unit size, whose squares float32 may not hold."""

_GROWN = 2.0**40
"""How much larger directions are by which that is told."""

Batch = tuple[Tensor, Tensor]
"""Images and labels."""

Run = Callable[[Plan, Tensor, Tensor, Mapping[str, Tensor]], GradNorms]
"""A way to run a batch by a plan: at once, or in halves."""


def looks_right(
    passes: Passes, plan: Plan, batch: Batch, parameters: Mapping[str, Tensor], result: GradNorms
) -> bool:
    """Whether a batch's examples have norms of their own, as far as one more pass can tell.

    The batch runs again in two halves, backwards, and with directions of another size. Where an
    example's norms or logits are others then, and for the images that stand out (the blankest, the
    darkest and the brightest), the plain loop says which are right. In half precision and TF32,
    where rounding moves some example of every batch, nothing is looked at.

    Args:
        passes: Runs them.
        plan: By which they are run.
        batch: Of two images at least.
        parameters: The model's parameters by name.
        result: What came of the batch.

    Returns:
        False where the plan must not be used.

    Raises:
        ConfigError: An example's logits depend on the others, or the backward pass is not linear.
    """
    images, labels = batch
    if is_half(result.logits) or rounds_products(images.device):
        return True
    try:
        again = passes.halves(plan, images, labels, parameters, SHRINK)
    except ForwardChangedError:
        return False
    except BROKEN as error:
        if is_out_of_memory(error) or isinstance(error, ConfigError):
            raise
        # A model of certain batch sizes alone.
        again = result
    bare, calls = bare_of(plan), passes.calls
    try:
        _refuse_vanishing(passes, bare, batch, parameters, result)
        for at in dict.fromkeys([*_suspects(result, again), *standing_out(images)]):
            one = images[at : at + 1], labels[at : at + 1]
            if not bool(result.logits[at].isfinite().all()):
                continue
            alone = passes.bare(bare, *one, parameters, SHRINK)
            ways = ((passes.batch, result), (passes.halves, again))
            if not all(
                _right(passes, run, plan, batch, parameters, found, alone, at)
                for run, found in ways
            ):
                refuse_nonlinear(*passes.two_sizes(bare, *one, parameters))
                return False
    finally:
        passes.calls = calls
    return True


def _refuse_vanishing(
    passes: Passes, bare: Plan, batch: Batch, parameters: Mapping[str, Tensor], result: GradNorms
) -> None:
    """Refuses gradients whose squares have come out as nothing: grown ones have others."""
    images, labels = batch
    sizes = passes.sizes(result.logits, labels).double()
    for name, column in result.norms.items():
        least = (column.double() / sizes).nan_to_num(torch.inf)
        at = int(least.argmin())
        if float(least[at]) >= _TINY:
            continue
        one = slice(at, at + 1)
        grown = passes.bare(bare, images[one], labels[one], parameters, _GROWN).norms[name]
        value = float(grown[0]) / float(sizes[at])
        if value < _TINY and abs(value - float(least[at])) > 1e-2 * value:
            raise vanishing(name, float(grown[0]))


def _right(
    passes: Passes, run: Run, plan: Plan, batch: Batch, parameters: Mapping[str, Tensor],
    found: GradNorms, alone: GradNorms, at: int,
) -> bool:  # fmt: skip
    """Whether an example has the norms that it has alone, up to a tie of rounding."""
    if bool(differ(found.logits[at : at + 1], alone.logits)):
        if not _rounded(passes, run, plan, batch, parameters, at):
            raise ConfigError(DEPENDS)
        return True
    if not bool(unlike(found.norms, alone.norms, at, found.logits).any()):
        return True
    gap = gap_of(found.norms, alone.norms, at)
    return tie_of_rounding(passes, plan, batch, at, parameters, gap, by_loop=True, run=run)


def _rounded(
    passes: Passes, run: Run, plan: Plan, batch: Batch, parameters: Mapping[str, Tensor], at: int
) -> bool:
    """Whether rounding alone makes an example's logits others: in float64 they are not."""
    (images, labels), wide, tensors = batch, plan.in_float64(), widened(parameters)
    if not images.is_floating_point():
        return False
    one = slice(at, at + 1)
    try:
        whole = run(wide, images.double(), labels, tensors).logits[one]
        alone = passes.bare(bare_of(wide), images[one].double(), labels[one], tensors, 1.0).logits
    except (ForwardChangedError, *BROKEN) as error:
        if is_out_of_memory(error):
            raise
        return False
    return not bool(differ(whole, alone, 1e-9))


def _suspects(result: GradNorms, again: GradNorms) -> list[int]:
    """The places of the examples that are most unlike themselves in the other order."""
    if result.logits.shape != again.logits.shape:
        return []
    apart = (again.logits.double() - result.logits.double()).abs().amax(1)
    most = apart / (1e-3 * result.logits.double().abs().amax(1)).clamp(min=1e-300)
    for name, column in result.norms.items():
        exact = column.double()
        limit = 2e-3 * exact + 1e-6 * exact.max()
        far = (again.norms[name].double() - exact).abs() / limit.clamp(min=1e-300)
        most = torch.maximum(most, far)
    most = most.nan_to_num(0.0, posinf=torch.finfo(torch.float64).max)
    worst = most.argsort(descending=True)[:SUSPECTS]
    return [int(at) for at in worst if float(most[at]) > 1]


def standing_out(images: Tensor) -> list[int]:
    """The places of the images that one may decide for a batch by.

    Returns:
        Of the one with the most zeros, of those with the smallest maximum and the smallest mean
        that are not zero throughout, and of the one with the largest mean.
    """
    rows = images.reshape(len(images), -1)
    rows = torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows
    if rows.shape[1] == 0:
        return []
    means = rows.mean(1, dtype=torch.float64)
    zeros, most = (rows == 0).sum(1), rows.amax(1).double()
    # Nothing that is done to a blank image shows.
    blank = zeros == rows.shape[1]
    dark = (column.masked_fill(blank, torch.inf).argmin() for column in (most, means))
    return [int(at) for at in (zeros.argmax(), *dark, means.argmax())]


def gap_of(norms: Mapping[str, Tensor], alone: Mapping[str, Tensor], at: int) -> dict[str, Tensor]:
    """How far the norms of one example of a batch are from those that it has alone."""
    return {n: (norms[n][at : at + 1] - alone[n]).abs().double() for n in norms}


def tie_of_rounding(
    passes: Passes, plan: Plan, batch: Batch, at: int, parameters: Mapping[str, Tensor],
    gap: dict[str, Tensor], *, by_loop: bool, run: Run | None = None,
) -> bool:  # fmt: skip
    """Whether an example's norms in its batch and alone differ by a tie of rounding.

    Args:
        passes: Runs them.
        plan: By which the batch was run.
        batch: The batch.
        at: The example's place in it.
        parameters: The model's parameters by name.
        gap: How far its norms are apart.
        by_loop: Whether alone is the plain loop, or the plan itself.
        run: How the batch was run, where it was not at once.
    """
    images, labels = batch
    one, wide, tensors = images[at : at + 1], plan.in_float64(), widened(parameters)
    label, lone, calls = labels[at : at + 1], bare_of(wide), passes.calls
    precision = precision_of(images)

    def both() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        whole = (run or passes.batch)(wide, images.double(), labels, tensors).norms
        if by_loop:
            alone = passes.bare(lone, one.double(), label, tensors, SHRINK)
        else:
            alone = passes.batch(wide, one.double(), label, tensors)
        return {name: column[at : at + 1] for name, column in whole.items()}, alone.norms

    def moved(draw: int) -> dict[str, Tensor]:
        others, near = nudged(tensors, one.double(), precision, draw)
        return passes.bare(lone, near, label, others, 1.0).norms

    found = images.is_floating_point() and is_tie(gap, both, moved)
    passes.calls = calls
    return found
