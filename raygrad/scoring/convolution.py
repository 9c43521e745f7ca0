"""Per-example weight gradients of convolutions, and their norms without forming them."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.scoring.cost import CPU, DeviceClass, Method, device_class, scratch_budget
from raygrad.scoring.outer import outer_methods, outer_norms, own_terms, without_digits
from raygrad.scoring.reductions import (
    Partial,
    accumulation_type,
    concatenate,
    over_groups,
    reduce_gradient,
)


@dataclass(frozen=True)
class Geometry:
    """The fixed numbers of a convolution; one entry a spatial dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees one input position, itself."""
        return (
            math.prod(self.kernel) == 1 and math.prod(self.stride) == 1 and sum(self.padding) == 0
        )

    def at_least_2d(self) -> "Geometry":
        """The same convolution with a leading spatial dimension of one, if it has one only."""
        if len(self.kernel) > 1:
            return self
        return Geometry(
            (1, *self.kernel),
            (1, *self.stride),
            (0, *self.padding),
            (1, *self.dilation),
            self.groups,
        )


def convolution_methods(
    x_shape: torch.Size,
    g_shape: torch.Size,
    geometry: Geometry,
    norms: Collection[str],
    *,
    by_rows: bool = False,
    on: DeviceClass = CPU,
) -> list[Method]:
    """The methods that can give one example's weight norms, with their costs.

    Args:
        x_shape: Shape of the input, ``[N, C_in, *spatial]``.
        g_shape: Shape of the output, ``[N, C_out, *spatial]``.
        geometry: Kernel, stride, padding, dilation and groups.
        norms: The norms that are needed.
        by_rows: Whether the input is laid out so that patches are copied row by row.
        on: The class of the device. A loop over examples is no method where one example is far
            from filling it.
    """
    groups = geometry.groups
    inputs, outputs = x_shape[1] // groups, g_shape[1] // groups
    pixels, positions = math.prod(x_shape[2:]), math.prod(g_shape[2:])
    patch = inputs * math.prod(geometry.kernel)
    if geometry.pointwise:
        return outer_methods(positions, inputs, outputs, norms, groups)
    flops = 2 * groups * positions * patch * outputs
    weight_bytes = 4 * groups * patch * outputs
    # Beyond the cache the whole gradient is written to fresh pages and read back.
    reduced = weight_bytes * ((2 + len(norms)) if weight_bytes > 1 << 20 else (1 + len(norms)) / 2)
    # Channels-last tensors are brought into the plain layout for every example.
    alone = {"calls": 10, "efficiency": 0.62} if by_rows else {"calls": 4, "efficiency": 0.8}
    methods = [
        Method("grouped", flops, reduced, weight_bytes, efficiency=0.8 if inputs == 1 else 0.02)
    ]
    if flops >= on.filling_flops:
        methods.insert(0, Method("per_example", flops, reduced, weight_bytes, **alone))
    if len(geometry.kernel) > 2:
        return methods
    unfolded_bytes = 4 * groups * positions * patch
    for method in outer_methods(positions, patch, outputs, norms, groups):
        methods.append(
            Method(
                f"unfold_{method.name}",
                method.flops,
                method.moved_bytes + (1 if by_rows else 2) * unfolded_bytes,
                method.scratch_bytes + unfolded_bytes,
                efficiency=0.5 if by_rows and method.name == "gradient" else method.efficiency,
            )
        )
    if set(norms) == {"l2"} and positions > 1:
        methods.append(_shifted_gram_method(pixels, positions, inputs, outputs, geometry))
    return methods


def _shifted_gram_method(
    pixels: int, positions: int, inputs: int, outputs: int, geometry: Geometry
) -> Method:
    groups, taps = geometry.groups, sum(geometry.kernel)
    return Method(
        "shifted_gram",
        2 * groups * (pixels**2 * inputs + positions**2 * outputs),
        2 * groups * (taps + 3) * positions * max(pixels, positions),
        4 * groups * (pixels**2 + 2 * positions * max(pixels, positions)),
        efficiency=0.7,
        shared_calls=8.0 + 8 * taps,
    )


def convolution_norms(
    x: Tensor, g: Tensor, geometry: Geometry, norms: Collection[str], method: str
) -> Partial:
    """Partial norms of the per-example weight gradients of a convolution.

    Args:
        x: Input, ``[N, C_in, *spatial]``.
        g: Gradient at the output, ``[N, C_out, *spatial]``.
        geometry: Kernel, stride, padding, dilation and groups.
        norms: Any of ``l1``, ``l2``, ``linf``.
        method: A name that ``convolution_methods`` gives.

    Returns:
        Each norm's partial, ``[N]``.
    """
    x, g = accumulation_type(x), accumulation_type(g)
    groups = geometry.groups
    if geometry.pointwise:
        partial = outer_norms(by_position(x, groups), by_position(g, groups), norms, method)
        return over_groups(partial, groups)
    if method == "per_example":
        rows = [
            reduce_gradient(weight_gradients(x[i : i + 1], g[i : i + 1], geometry), norms)
            for i in range(len(x))
        ]
        return {norm: torch.cat([row[norm] for row in rows]) for norm in norms}
    if method == "grouped":
        return reduce_gradient(weight_gradients(x, g, geometry), norms)
    if method == "shifted_gram":
        return over_groups({"l2": shifted_gram(x, g, geometry)}, groups)
    how = method.removeprefix("unfold_")
    if not rows_of_channels(x, geometry):
        on_cpu = device_class(x.device.type) is CPU
        patches = unfold(x, geometry) if on_cpu else copied_patches(x, geometry)
        return over_groups(outer_norms(patches, by_position(g, groups), norms, how), groups)
    return _norms_by_patches(x, by_position(g, 1), geometry, norms, how)


def by_position(x: Tensor, groups: int) -> Tensor:
    """Views ``[N, C, *spatial]`` as ``[N * groups, positions, C / groups]``."""
    x = x.flatten(2).mT
    if groups == 1:
        return x
    n, positions, channels = x.shape
    return (
        x.unflatten(2, (groups, channels // groups))
        .transpose(1, 2)
        .reshape(n * groups, positions, channels // groups)
    )


def unfold(x: Tensor, geometry: Geometry) -> Tensor:
    """The patches that each output position sees: ``[N * groups, P, K / groups]``."""
    flat = geometry.at_least_2d()
    x = x.unsqueeze(2) if x.ndim == 3 else x
    columns = F.unfold(x, flat.kernel, flat.dilation, flat.padding, flat.stride)
    return columns.unflatten(1, (flat.groups, -1)).flatten(0, 1).mT


def copied_patches(x: Tensor, geometry: Geometry) -> Tensor:
    """The same patches by one strided copy of all examples: ``[N * groups, P, K / groups]``.

    Torch's unfolding for GPUs starts a kernel for every example.
    """
    flat = geometry.at_least_2d()
    windows = _windows(x.unsqueeze(2) if x.ndim == 3 else x, flat).permute(0, 5, 3, 4, 1, 2)
    n, _, _, _, tall, wide = windows.shape
    return windows.reshape(n * flat.groups, -1, tall * wide).mT


def rows_of_channels(x: Tensor, geometry: Geometry) -> bool:
    """Whether a row of a patch is one run of memory: the channels of neighbouring pixels."""
    return (
        x.ndim == 4
        and geometry.groups == 1
        and x.shape[1] > 1
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _norms_by_patches(
    x: Tensor, g: Tensor, geometry: Geometry, norms: Collection[str], method: str
) -> Partial:
    """Norms by patches copied row by row, a chunk of examples at a time, into one buffer.

    The same numbers as by ``unfold`` with a patch's entries in another order, for which no norm
    cares. One buffer for all chunks: fresh pages cost more than the copy.
    """
    windows = _windows(x, geometry)
    n, positions = len(x), math.prod(windows.shape[1:3])
    patch = math.prod(windows.shape[3:])
    step = max(1, min(n, scratch_budget(x.device.type) // (4 * positions * patch)))
    buffer = x.new_empty(step, *windows.shape[1:])
    partials = []
    for start in range(0, n, step):
        chunk = windows[start : start + step]
        patches = buffer[: len(chunk)].copy_(chunk).view(len(chunk), positions, patch)
        partials.append(outer_norms(patches, g[start : start + step], norms, method))
    return concatenate(partials)


def _windows(x: Tensor, geometry: Geometry) -> Tensor:
    """Views an input ``[N, C, H, W]`` as ``[N, out_height, out_width, *kernel, C]``, padded."""
    (tall, wide), (down, right) = geometry.kernel, geometry.padding
    padded = F.pad(x, (right, right, down, down)) if down or right else x
    n, channels, height, width = padded.shape
    steps = geometry.stride
    apart = geometry.dilation
    size = (
        (height - apart[0] * (tall - 1) - 1) // steps[0] + 1,
        (width - apart[1] * (wide - 1) - 1) // steps[1] + 1,
    )
    example, channel, row, column = padded.stride()
    return padded.as_strided(
        (n, *size, tall, wide, channels),
        (
            example,
            steps[0] * row,
            steps[1] * column,
            apart[0] * row,
            apart[1] * column,
            channel,
        ),
    )


def weight_gradients(x: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Explicit weight gradients ``[N, C_out, C_in / groups, *kernel]``.

    The batch is folded into the groups of ONE weight-gradient convolution, in which example and
    group n are alone.

    Args:
        x: Input, ``[N, C_in, *spatial]``.
        g: Gradient at the output, ``[N, C_out, *spatial]``.
        geometry: Kernel, stride, padding, dilation and groups.
    """
    n, outputs = g.shape[:2]
    weight = g.new_empty(1).expand(n * outputs, x.shape[1] // geometry.groups, *geometry.kernel)
    _, gradient, _ = torch.ops.aten.convolution_backward(
        g.reshape(1, n * outputs, *g.shape[2:]),
        x.reshape(1, n * x.shape[1], *x.shape[2:]),
        weight,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        [0] * len(geometry.kernel),
        n * geometry.groups,
        (False, True, False),
    )
    return gradient.view(n, outputs, *weight.shape[1:])


def shifted_gram(x: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    r"""Squared l2 norms of the weight gradients, with neither them nor the patches formed.

    .. math::
        \lVert \textstyle\sum_p g_p u_p^T \rVert_F^2
            = \sum_{p,q} \langle g_p, g_q \rangle \langle u_p, u_q \rangle,
        \qquad
        \langle u_p, u_q \rangle = \sum_{k} \langle x_{sp + dk}, x_{sq + dk} \rangle

    The patches' Gram matrix is a sum of shifted copies of the pixels' Gram matrix, first over the
    kernel's columns and then over its rows; pixels outside the image contribute nothing.

    Args:
        x: Input, ``[N, C_in, *spatial]``, one or two spatial dimensions.
        g: Gradient at the output, ``[N, C_out, *spatial]``.
        geometry: Kernel, stride, padding, dilation and groups.

    Returns:
        ``[N * groups]``.
    """
    flat = geometry.at_least_2d()
    x, g = (tensor.unsqueeze(2) if tensor.ndim == 3 else tensor for tensor in (x, g))
    (height, width), (out_height, out_width) = x.shape[2:], g.shape[2:]
    pixels = by_position(x, flat.groups)
    gram = torch.bmm(pixels, pixels.mT).view(-1, height, width, height, width)
    gram = _sum_of_shifts(gram, 2, out_width, flat, 1)
    gram = _sum_of_shifts(gram, 1, out_height, flat, 0)
    outputs = by_position(g, flat.groups)
    left, right = gram.reshape(len(outputs), -1), torch.bmm(outputs, outputs.mT)
    own = own_terms(left.view_as(right), right)
    squares = left.mul_(right.view(len(outputs), -1)).sum(1)
    for row in without_digits(squares, own).tolist():
        at = slice(row // flat.groups, row // flat.groups + 1)
        gradient = weight_gradients(x[at], g[at], flat).unflatten(1, (flat.groups, -1))
        squares[row] = reduce_gradient(gradient[:, row % flat.groups], ["l2"])["l2"][0]
    return squares


def _sum_of_shifts(gram: Tensor, dim: int, size: int, geometry: Geometry, axis: int) -> Tensor:
    """Sums the Gram matrix over the kernel's taps along one axis (dimensions dim and dim + 2)."""
    kernel, stride = geometry.kernel[axis], geometry.stride[axis]
    padding, dilation = geometry.padding[axis], geometry.dilation[axis]
    if (kernel, stride, padding) == (1, 1, 0):
        return gram
    length = gram.shape[dim]
    shape = list(gram.shape)
    shape[dim] = shape[dim + 2] = size
    offsets = [tap * dilation - padding for tap in range(kernel)]
    whole = stride == 1 and size == length and 0 in offsets
    total = gram.clone() if whole else gram.new_zeros(shape)
    for offset in offsets:
        if whole and offset == 0:
            continue
        first = max(0, -(offset // stride))
        last = min(size - 1, (length - 1 - offset) // stride)
        if last < first:
            continue
        count, start = last - first + 1, stride * first + offset
        target, source = total, gram
        for axis_dim in (dim, dim + 2):
            target = target.narrow(axis_dim, first, count)
            source = source.narrow(axis_dim, start, stride * (count - 1) + 1)
        step = [slice(None)] * gram.ndim
        step[dim] = step[dim + 2] = slice(None, None, stride)
        target.add_(source[tuple(step)])
    return total
