"""Norms of gradients, one an example, and how those of several parameters combine."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

Partial = dict[str, Tensor]
"""What one parameter adds to each norm: ``l2`` is the SQUARED norm; all ``[B]``."""


def accumulation_type(tensor: Tensor) -> Tensor:
    """Returns the tensor in float32 at least: norms are never accumulated in half precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def reduce_gradient(gradient: Tensor, norms: Collection[str]) -> Partial:
    """Partial norms of explicit per-example gradients, which it overwrites.

    ``torch.linalg.vector_norm`` is avoided on purpose: over millions of float32 values it is off
    by up to 8.5e-5 on the CPU, where sums (which add in a tree) keep 1e-7; and elementwise passes
    in place are several times faster there than ``aminmax`` or a dot product for each row.

    Args:
        gradient: ``[B, ...]``, owned by the caller and not needed afterwards. Complex entries
            count by their modulus.
        norms: Any of ``l1``, ``l2``, ``linf``.
    """
    if gradient.numel() == 0:
        # A parameter without entries.
        zero = gradient.new_zeros(len(gradient), dtype=torch.float32)
        return {norm: zero.clone() for norm in norms}
    rows = accumulation_type(gradient).reshape(len(gradient), -1)
    partial: Partial = {}
    if rows.is_complex():
        rows = rows.abs()
    elif "l1" in norms or "linf" in norms:
        rows = rows.abs_()
    if "l1" in norms:
        partial["l1"] = rows.sum(1)
    if "linf" in norms:
        partial["linf"] = rows.amax(1)
    if "l2" in norms:
        partial["l2"] = rows.square_().sum(1)
    return partial


def owned(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same gradients, each in memory of its own, which a reduction may overwrite.

    Autograd hands one tensor to all terms of a sum (a weight that is computed as ``a + b``), parts
    of one tensor to what was stacked, and one number in the place of many equal ones.

    Args:
        gradients: By parameter; nothing else may need them afterwards.
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, gradient in gradients.items():
        memory = gradient.untyped_storage()._cdata
        free = memory not in taken and gradient.is_contiguous()
        found[name] = gradient if free else gradient.clone(memory_format=torch.contiguous_format)
        taken.add(memory)
    return found


def rank_one(x: Tensor, g: Tensor, norms: Collection[str]) -> Partial:
    r"""Partial norms of the outer products :math:`g_i x_i^T`: every norm is a product of norms.

    Args:
        x: ``[B, I]``.
        g: ``[B, O]``.
        norms: Any of ``l1``, ``l2``, ``linf``.
    """
    left, right = _norms_of(x, norms), _norms_of(g, norms)
    return {norm: left[norm] * right[norm] for norm in left}


def _norms_of(rows: Tensor, norms: Collection[str]) -> Partial:
    rows = accumulation_type(rows)
    if rows.device.type != "cpu" or rows.numel() <= 4 * _BLOCK or not rows.is_contiguous():
        return _norms_in_block(rows, norms)
    step = max(1, _BLOCK // rows.shape[1])
    return concatenate([_norms_in_block(block, norms) for block in rows.split(step)])


_BLOCK = 1 << 16
"""Numbers of activations that are squared at a time: what a pass writes stays in the cache. Of
1024 x 9216 whole passes took 6 times as long, most of it for fresh pages (one core, busy)."""


def _norms_in_block(rows: Tensor, norms: Collection[str]) -> Partial:
    partial: Partial = {}
    if "l2" in norms:
        partial["l2"] = rows.square().sum(1)
    if "l1" in norms:
        partial["l1"] = rows.abs().sum(1)
    if "linf" in norms:
        partial["linf"] = rows.abs().amax(1)
    return partial


def combine(partials: Sequence[Partial], norm: str) -> Tensor:
    """The norm over several parameters: squares and sums add, maxima combine.

    Args:
        partials: One for each parameter; at least one.
        norm: ``l1``, ``l2`` or ``linf``.

    Returns:
        float32 ``[B]``.
    """
    stacked = torch.stack([partial[norm] for partial in partials]).double()
    if norm == "linf":
        return stacked.amax(0).float()
    total = stacked.sum(0)
    return (total.clamp_(min=0).sqrt_() if norm == "l2" else total).float()


def concatenate(chunks: Sequence[Partial]) -> Partial:
    """Joins the partial norms of consecutive chunks of examples."""
    if len(chunks) == 1:
        return chunks[0]
    return {norm: torch.cat([chunk[norm] for chunk in chunks]) for norm in chunks[0]}


def over_groups(partial: Partial, groups: int) -> Partial:
    """Combines ``[B * groups]`` partial norms of disjoint parts of a parameter into ``[B]``."""
    if groups == 1:
        return partial
    return {
        norm: value.view(-1, groups).amax(1) if norm == "linf" else value.view(-1, groups).sum(1)
        for norm, value in partial.items()
    }
