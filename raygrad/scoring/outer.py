r"""Norms of sums of outer products, :math:`\sum_t g_t x_t^T`: the weight gradient of most layers.

A linear layer over a sequence, a 1x1 convolution over its pixels and any convolution over its
unfolded patches all have this form. Below, N counts examples (times groups), T positions, I inputs
and O outputs.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from raygrad.scoring.cost import CPU, Method, device_class
from raygrad.scoring.reductions import (
    Partial,
    accumulation_type,
    concatenate,
    rank_one,
    reduce_gradient,
)

ROWS = 64
"""A block has so many outputs where there are as many, and fewer examples for it.

With 512 x 4608 gradients of 16 positions, blocks of 8 outputs of 14 examples took 1.5 times as long
as blocks of 113 outputs of one (one core, CPU time, a busy machine); the whole of VGG16 at 32 px
in l1 gains 3% on an idle one.
"""


def outer_methods(
    positions: int, inputs: int, outputs: int, norms: Collection[str], groups: int = 1
) -> list[Method]:
    """The methods that can give the norms of one example, with their costs.

    Args:
        positions: T.
        inputs: I, in one group.
        outputs: O, in one group.
        norms: The norms that are needed.
        groups: How many such sums one example has.
    """
    both = inputs + outputs
    if positions == 1:
        return [Method("rank_one", 2 * groups * both, 4 * groups * both)]
    methods = [
        Method(
            "gradient",
            flops=2 * groups * positions * inputs * outputs,
            # In blocks that stay in the cache.
            moved_bytes=4 * groups * inputs * outputs * (1 + len(norms)) / 3,
            scratch_bytes=4 * groups * inputs * outputs,
            efficiency=0.7,
        )
    ]
    if set(norms) == {"l2"}:
        methods.append(
            Method(
                "gram",
                flops=2 * groups * positions**2 * both,
                moved_bytes=8 * groups * positions**2,
                scratch_bytes=8 * groups * positions**2,
                efficiency=0.7,
            )
        )
    return methods


def outer_norms(x: Tensor, g: Tensor, norms: Collection[str], method: str) -> Partial:
    r"""Partial norms of :math:`\sum_t g_t x_t^T`.

    Args:
        x: ``[N, T, I]``.
        g: ``[N, T, O]``.
        norms: Any of ``l1``, ``l2``, ``linf``.
        method: ``rank_one``, ``gram`` or ``gradient``.

    Returns:
        Each norm's partial, ``[N]``.
    """
    if method == "rank_one":
        return rank_one(x[:, 0], g[:, 0], norms)
    x, g = accumulation_type(x), accumulation_type(g)
    if method == "gram":
        return {"l2": _gram(x, g)}
    if "l2" in norms and len(norms) > 1 and _gram_beats_passes(x, g):
        return {"l2": _gram(x, g)} | _blocked(x, g, [norm for norm in norms if norm != "l2"])
    return _blocked(x, g, norms)


def _gram(x: Tensor, g: Tensor) -> Tensor:
    """Squared l2 norms, without the gradients but where these are next to nothing."""
    left, right = torch.bmm(x, x.mT), torch.bmm(g, g.mT)
    own = own_terms(left, right)
    squares = left.mul_(right).sum((1, 2))
    lost = without_digits(squares, own)
    if len(lost):
        squares[lost] = _blocked(x[lost], g[lost], ["l2"])["l2"]
    return squares


CANCELS = 1e-3
"""The share of the squares of its own terms below which the square of a sum has lost digits.

The rounding of a Gram matrix is some eps of these squares, and a sum that cancels (the gradient
before a normalisation, of an image without contrast) may be less than that."""


def own_terms(left: Tensor, right: Tensor) -> Tensor:
    """The sums of the squares of what is added up, ``[N]``, from both Gram matrices."""
    return (left.diagonal(dim1=1, dim2=2) * right.diagonal(dim1=1, dim2=2)).sum(1)


def without_digits(squares: Tensor, own: Tensor) -> Tensor:
    """Which examples' squares must be found another way than by Gram matrices, ``[n]``.

    None on a device that would have to be waited for.
    """
    if device_class(squares.device.type) is not CPU:
        return torch.empty(0, dtype=torch.int64)
    return (squares < CANCELS * own).nonzero()[:, 0]


def _gram_beats_passes(x: Tensor, g: Tensor) -> bool:
    """Whether two Gram matrices cost less than squaring and adding up gradients in the cache."""
    positions, inputs, outputs = x.shape[1], x.shape[2], g.shape[2]
    return 10 * positions**2 * (inputs + outputs) < 6 * inputs * outputs


def _blocked(x: Tensor, g: Tensor, norms: Collection[str]) -> Partial:
    """Forms the gradients a block at a time, in one buffer that stays in the cache.

    A block is some outputs of some examples. Examples give way first: products of fewer than
    `ROWS` outputs waste the processor.
    """
    n, inputs, outputs = len(x), x.shape[2], g.shape[2]
    numbers = device_class(x.device.type).block_bytes // 4
    examples = max(1, min(n, numbers // (min(ROWS, outputs) * inputs)))
    size = max(1, min(outputs, numbers // (examples * inputs)))
    if (examples, size) == (n, outputs):
        return reduce_gradient(torch.bmm(g.mT, x), norms)
    buffer = x.new_empty(examples, size, inputs)
    chunks = []
    for first in range(0, n, examples):
        some = slice(first, first + examples)
        partials = []
        for start in range(0, outputs, size):
            block = g[some, :, start : start + size]
            into = buffer[: len(block), : block.shape[2]]
            torch.bmm(block.mT, x[some], out=into)
            partials.append(reduce_gradient(into, norms))
        chunks.append(_together(partials))
    return concatenate(chunks)


def _together(partials: Sequence[Partial]) -> Partial:
    """Combines partial norms of disjoint parts of the same examples' gradients."""
    return {
        norm: torch.stack([partial[norm] for partial in partials]).amax(0)
        if norm == "linf"
        else torch.stack([partial[norm] for partial in partials]).sum(0)
        for norm in partials[0]
    }
