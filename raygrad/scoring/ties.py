"""Tells a tie that rounding decides (a ReLU at 0, two equal maxima) from a wrong number.

At a kink of the loss two right computations of one gradient, which round differently, may come out
on different sides. That is so where both ways give the same norms in float64, and where a nudge of
the size of the rounding moves the norms of the one example as far as the two ways are apart.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.plan import Plan
from raygrad.scoring.reductions import Partial
from raygrad.scoring.running import widened
from raygrad.scoring.strays import StrayParameterError, passing_for
from raygrad.scoring.verify import (
    ALL_NORMS,
    BROKEN,
    Reference,
    check_formulas,
    norm_of,
    single_reference,
)

log = logging.getLogger("raygrad")

K = TypeVar("K", bound=Hashable)
Norms = Mapping[K, Tensor]
"""Norms of some examples, ``[n]`` each, by what they are of."""

DRAWS = 12
"""Nudges that are tried, at most; every second one is twice as large as those before."""

SLACK = 4.0
"""How much further apart than a nudge moves them two ways may be."""

_LARGEST = 2.0**-5
"""The largest nudge, for types that keep few digits."""

_ROUNDING = 1e-3
"""How far apart, relatively, they may be for no reason; all that is checked may be further."""

_SAME = 1e-5
"""How far, relatively, two ways may be apart in float64; columns are float32."""


def nudged(
    tensors: Mapping[str, Tensor], images: Tensor, precision: float, draw: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Changes every number of parameters and images by a random share of itself.

    Roundings of a deep network add up from layer to layer, and shares of its parameters average
    out: the first draws change by twice the precision at most, the last by 64 times.

    Args:
        tensors: The parameters by name; what has no fractions stays as it is.
        images: ``[n, ...]``.
        precision: The spacing of numbers about 1 in the type that is meant.
        draw: The seed.
    """
    generator = torch.Generator().manual_seed(draw)
    size = min(2.0 ** (1 + draw // 2) * precision, _LARGEST)

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
        return tensor * (1 + size * (2 * noise.to(tensor.device) - 1))

    others = {name: passing_for(moved(tensor), tensor) for name, tensor in tensors.items()}
    return others, moved(images)


def precision_of(images: Tensor) -> float:
    """The spacing of numbers about 1 in the type in which a pass over such images computes."""
    kind = images.device.type
    dtype = images.dtype if images.is_floating_point() else torch.float32
    if torch.is_autocast_enabled(kind) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
    return torch.finfo(dtype).eps


def decided_by_rounding(
    gap: Norms[K], wide: tuple[Norms[K], Norms[K]], moved: Iterator[Norms[K]]
) -> set[K]:
    """Names what two ways differ in by a tie alone.

    Args:
        gap: How far two ways are apart, by what they are of.
        wide: What each gives in float64.
        moved: What the second gives in float64 after nudges.
    """
    first, second = wide
    reach = {key: _ROUNDING / SLACK * second[key] for key in gap if _same(first[key], second[key])}
    found: set[K] = set()
    for norms in moved if reach else ():
        for key, largest in reach.items():
            reach[key] = torch.maximum(largest, (norms[key] - second[key]).abs())
        found = {key for key, most in reach.items() if bool((gap[key] <= SLACK * most).all())}
        if len(found) == len(reach):
            break
    return found


def _same(first: Tensor, second: Tensor) -> bool:
    limit = _SAME * second.abs() + 1e-9 * second.abs().max()
    return bool(((first - second).abs() <= limit).all())


def is_tie(
    gap: Norms[K],
    wide: Callable[[], tuple[Norms[K], Norms[K]]],
    moved: Callable[[int], Norms[K]],
) -> bool:
    """Whether rounding decides between two ways in everything, and says so.

    Args:
        gap: How far they are apart.
        wide: Computes both in float64.
        moved: Computes the second in float64 after a nudge.

    Returns:
        False too where the model does not run in float64.
    """
    try:
        found = decided_by_rounding(gap, wide(), (moved(draw) for draw in range(DRAWS)))
    except (StrayParameterError, ForwardChangedError, *BROKEN) as error:
        if is_out_of_memory(error):
            raise
        return False
    if len(found) < len(gap):
        return False
    log.warning(
        "an example stands at a kink of its loss (an activation or a maximum that rounding "
        "decides): its gradient norms are right up to that, and may be others in another batch."
    )
    return True


def tied_parameters(
    plan: Plan,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    reference: Reference,
    copies: int,
    found: Mapping[str, Partial],
    wrong: set[str],
) -> set[str]:
    """Names the parameters whose norms by formula differ from the reference by a tie alone.

    Args:
        plan: The plan that was checked.
        parameters: All parameters by name.
        pair: The images of the check.
        reference: What plain autograd said of them.
        copies: Beside how many copies of itself each ran.
        found: The partial norms by formula.
        wrong: The parameters of which they differ.
    """
    wrong = wrong & set(found) & set(reference.partials)
    if not pair.is_floating_point() or not wrong:
        return set()
    wide, tensors, images = plan.in_float64(), widened(parameters), pair.double()
    precision = precision_of(pair)

    def rows(partials: Mapping[str, Partial]) -> dict[tuple[str, str], Tensor]:
        return {(name, norm): norm_of(partials[name], norm) for name in wrong for norm in ALL_NORMS}

    def moved() -> Iterator[dict[tuple[str, str], Tensor]]:
        for draw in range(DRAWS):
            others, near = nudged(tensors, images, precision, draw)
            yield rows(single_reference(wide.runner, others, near, copies).partials)

    ours, theirs = rows(found), rows(reference.partials)
    gap = {key: (ours[key] - theirs[key]).abs() for key in ours}
    try:
        exact = single_reference(wide.runner, tensors, images, copies)
        again = check_formulas(wide, tensors, images, exact)[2]
        explained = decided_by_rounding(gap, (rows(again), rows(exact.partials)), moved())
    except (StrayParameterError, ForwardChangedError, LookupError, *BROKEN) as error:
        if is_out_of_memory(error):
            raise
        return set()
    return {name for name in wrong if all((name, norm) in explained for norm in ALL_NORMS)}
