"""The parametric operations with a formula: forward, input gradient, and per-example norms.

An operation is a layer's call reduced to what it computes. It is found from the FUNCTION that a
model calls (``F.linear``, ``F.conv2d``, an addition), not from its modules, so a layer that is
written out by hand counts as well as one of torch.nn. Per-example methods take tensors whose first
dimension is the example ("example-major"); further leading dimensions, such as windows, belong to
the example.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.scoring.convolution import (
    Geometry,
    convolution_methods,
    convolution_norms,
    rows_of_channels,
    weight_gradients,
)
from raygrad.scoring.cost import Method, device_class
from raygrad.scoring.layout import Layout
from raygrad.scoring.outer import outer_methods, outer_norms
from raygrad.scoring.reductions import Partial, accumulation_type, reduce_gradient

Gradients = tuple[Tensor | None, Tensor | None]
"""Per-example gradients of the weight and of the bias, ``[B, *shape]``; None where not wanted."""


OnePass = tuple[Tensor | None, Tensor, Tensor]


@dataclass
class Operation:
    """One call of a parametric function; subclasses say which."""

    kind: ClassVar[str] = ""
    weight: Tensor | None
    bias: Tensor | None
    batch_dim: int = field(default=0, kw_only=True)
    """Which dimension of the output holds the batch."""
    folded: bool = field(default=False, kw_only=True)
    """Whether each example is several rows of that dimension (windows): ``[B, k, ...]``."""

    @property
    def keeps_input(self) -> bool:
        """Whether gradients need the input's values, not its shape alone."""
        return True

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the output, and what the input gradient needs beside the input."""
        raise NotImplementedError

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns the gradient at the input, in the model's own layout."""
        raise NotImplementedError

    def one_pass(self, x: Tensor, g: Tensor, *, input_gradient: bool) -> OnePass | None:
        """Returns all three gradients from one kernel, where there is one; else None.

        Returns:
            Input gradient (None where not wanted), and weight and bias gradients ``[B, *shape]``.
        """
        return None

    def fits(self, layout: Layout, y: Tensor) -> bool:
        """Whether the formulas hold where the batch is in this dimension of the output."""
        return layout.dim == 0

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns the methods for the weight's norms, for shapes like these (example-major)."""
        raise NotImplementedError

    def weight_norms(self, x: Tensor, g: Tensor, norms: Collection[str], method: str) -> Partial:
        """Returns the partial norms of the weight's per-example gradients."""
        gradient = self.gradients(x, g, weight=True, bias=False)[0]
        assert gradient is not None
        return reduce_gradient(gradient, norms)

    def bias_norms(self, x: Tensor, g: Tensor, norms: Collection[str]) -> Partial:
        """Returns the partial norms of the bias's per-example gradients."""
        gradient = self.gradients(x, g, weight=False, bias=True)[1]
        assert gradient is not None
        return reduce_gradient(gradient, norms)

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns the explicit per-example gradients: B times the parameters' memory."""
        raise NotImplementedError


@dataclass
class Linear(Operation):
    """``y = x W^T + b`` over the last dimension; ``transposed`` is ``y = x W``."""

    kind: ClassVar[str] = "linear"
    transposed: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns ``[..., O]`` for x ``[..., I]``."""
        assert self.weight is not None
        weight, bias = self.weight.to(x.dtype), _like(self.bias, x)
        if x.ndim > 2 and not weight.requires_grad and not x.is_contiguous():
            # Torch makes a product for each row of these, unless the weight requires a gradient.
            x = x.contiguous()
        if self.transposed:
            return torch.matmul(x, weight), ()
        return F.linear(x, weight, bias), ()

    def fits(self, layout: Layout, y: Tensor) -> bool:
        """Whether the batch is not the dimension that is multiplied."""
        return layout.dim < y.ndim - 1

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns ``g W``, or ``g W^T`` where transposed."""
        assert self.weight is not None
        weight = self.weight.to(g.dtype)
        return torch.matmul(g, weight.mT if self.transposed else weight)

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns those of sums of outer products over the example's positions."""
        return outer_methods(x[0, ..., 0].numel(), x.shape[-1], g.shape[-1], norms)

    def weight_norms(self, x: Tensor, g: Tensor, norms: Collection[str], method: str) -> Partial:
        r"""Returns norms of :math:`\sum_t g_t x_t^T` of each example."""
        return outer_norms(_sequence(x), _sequence(g), norms, method)

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``[B, O, I]`` and ``[B, O]``."""
        x, g = accumulation_type(_sequence(x)), accumulation_type(_sequence(g))
        left, right = (x, g) if self.transposed else (g, x)
        return torch.bmm(left.mT, right) if weight else None, g.sum(1) if bias else None


def _like(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """Casts a parameter to the type of the activation, for autocast."""
    return None if parameter is None else parameter.to(x.dtype)


def _sequence(x: Tensor) -> Tensor:
    """Views ``[B, ..., D]`` as ``[B, T, D]``."""
    return x.unsqueeze(1) if x.ndim == 2 else x.flatten(1, -2)


@dataclass
class Convolution(Operation):
    """A convolution over one to three spatial dimensions."""

    kind: ClassVar[str] = "convolution"
    geometry: Geometry

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the convolution with the call's own geometry."""
        assert self.weight is not None
        spec = self.geometry
        output = torch.convolution(
            x, self.weight.to(x.dtype), _like(self.bias, x), spec.stride, spec.padding,
            spec.dilation, False, [0] * len(spec.kernel), spec.groups,
        )  # fmt: skip
        return output, ()

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns the transposed convolution of g."""
        assert self.weight is not None
        spec = self.geometry
        gradient: Tensor = torch.ops.aten.convolution_backward(
            g, x, self.weight.to(g.dtype), None, spec.stride, spec.padding, spec.dilation, False,
            [0] * len(spec.kernel), spec.groups, (True, False, False),
        )[0]  # fmt: skip
        return gradient

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns every way to a convolution's norms; gradients alone where windows are folded."""
        if self.folded:
            return [Method("gradient", 0.0)]
        by_rows = rows_of_channels(x, self.geometry)
        on = device_class(x.device.type)
        return convolution_methods(x.shape, g.shape, self.geometry, norms, by_rows=by_rows, on=on)

    def weight_norms(self, x: Tensor, g: Tensor, norms: Collection[str], method: str) -> Partial:
        """Returns norms by the method chosen, of patches or of Gram matrices."""
        if self.folded:
            return super().weight_norms(x, g, norms, method)
        return convolution_norms(x, g, self.geometry, norms, method)

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``[B, O, I / groups, *kernel]`` and ``[B, O]``."""
        x, g = accumulation_type(x), accumulation_type(g)
        weight_gradient = bias_gradient = None
        if weight:
            fold = x.shape[1] if self.folded else 1
            flat = (x.flatten(0, 1), g.flatten(0, 1)) if self.folded else (x, g)
            rows = weight_gradients(*flat, self.geometry)
            weight_gradient = rows.unflatten(0, (-1, fold)).sum(1) if fold > 1 else rows
        if bias:
            channel = 2 if self.folded else 1
            bias_gradient = g.sum([d for d in range(1, g.ndim) if d != channel])
        return weight_gradient, bias_gradient


def by_channel(vector: Tensor, ndim: int) -> Tensor:
    """Views ``[C]`` so that it broadcasts over dimension 1."""
    return vector.view(-1, *[1] * (ndim - 2))


def summed(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Sums over dimensions; a copy where there are none, since reductions overwrite their input."""
    return x.sum(list(dims)) if dims else x.clone()


@dataclass
class Affine(Operation):
    """``y = x * weight + bias``, either of them optional, both broadcast over x.

    Additions and products with a bare parameter (position embeddings, layer scale), and the affine
    part of group and instance normalisation. Without an x it is an expansion over the batch (a
    class token). ``aligned`` is the shape that the parameter broadcasts from, without the batch.
    """

    kind: ClassVar[str] = "affine"
    aligned: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None
    """Shape to expand to, where there is no x."""

    @property
    def keeps_input(self) -> bool:
        """Whether gradients need the input's values: not those of an addition."""
        return self.weight is not None

    def forward(self, x: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns ``x * weight + bias``, or the expanded bias where there is no x."""
        if x is None:
            assert self.bias is not None
            assert self.shape is not None
            return self.bias.expand(self.shape).clone(), ()
        y = x
        if self.weight is not None:
            y = y * self._placed(self.weight, x)
        if self.bias is not None:
            y = y + self._placed(self.bias, x)
        return y, ()

    def fits(self, layout: Layout, y: Tensor) -> bool:
        """Whether no parameter has an entry of its own for each example."""
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                aligned = self._shape_of(parameter)
                place = layout.dim - (y.ndim - len(aligned))
                if place >= 0 and aligned[place] != 1:
                    return False
        return True

    def _shape_of(self, parameter: Tensor) -> tuple[int, ...]:
        """The shape that the parameter broadcasts from; -1 in ``aligned`` stands for its size."""
        return tuple(parameter.view(self.aligned).shape) if self.aligned else tuple(parameter.shape)

    def _placed(self, parameter: Tensor, x: Tensor) -> Tensor:
        return parameter.view(self.aligned).to(x.dtype) if self.aligned else parameter

    def input_gradient(self, x: Tensor | None, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns ``g * weight``, summed to the shape of x; None where there is no x."""
        if x is None:
            return None
        if self.weight is not None:
            g = g * self._placed(self.weight, x)
        return g.sum_to_size(x.shape)

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns the one method: sums over what was broadcast."""
        return [Method("sums", 2 * g[0].numel(), 12 * g[0].numel(), 4 * g[0].numel())]

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``sum g x`` and ``sum g`` over what was broadcast, ``[B, *shape]``."""
        g = accumulation_type(g)
        weight_gradient = self._reduce(g * x, self.weight) if weight else None
        return weight_gradient, self._reduce(g, self.bias) if bias else None

    def _reduce(self, rows: Tensor, parameter: Tensor | None) -> Tensor:
        assert parameter is not None
        aligned = self._shape_of(parameter)
        ndim = rows.ndim - (1 if self.folded else 0)
        placed = (1,) * (ndim - len(aligned)) + aligned
        assert placed[self.batch_dim] == 1
        # The example has moved to the front; where it was stand the windows, or nothing.
        if not self.folded:
            placed = placed[: self.batch_dim] + placed[self.batch_dim + 1 :]
        dims = [d + 1 for d, size in enumerate(placed) if size == 1]
        return summed(rows, dims).reshape(len(rows), *parameter.shape)


@dataclass
class Embedding(Operation):
    """Rows of a table, picked by each example's indices."""

    kind: ClassVar[str] = "embedding"
    padding: int | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the rows of the table that x names."""
        assert self.weight is not None
        return F.embedding(x, self.weight), ()

    def fits(self, layout: Layout, y: Tensor) -> bool:
        """Whether the batch is not the dimension of the rows' entries."""
        return layout.dim < y.ndim - 1

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns None: indices have no gradient."""
        return None

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns the one method: sums of equal indices' rows."""
        tokens = x[0].numel()
        return [Method("row_sums", tokens**2, 12 * g[0].numel(), 4 * (tokens**2 + g[0].numel()))]

    def weight_norms(self, x: Tensor, g: Tensor, norms: Collection[str], method: str) -> Partial:
        """Returns norms of the rows' sums by index, without the rest of the table."""
        ids, rows = x.reshape(len(x), -1), self._rows(x, g)
        # Equal indices add their gradients, all at the place of the first of them.
        first = (ids[:, :, None] == ids[:, None, :]).to(torch.uint8).argmax(2)
        total = torch.zeros_like(rows).scatter_add_(1, first[..., None].expand_as(rows), rows)
        return reduce_gradient(total, norms)

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``[B, rows, D]``, zero where no index points, and None."""
        assert self.weight is not None
        ids, rows = x.reshape(len(x), -1), self._rows(x, g)
        total = rows.new_zeros(len(x), *self.weight.shape)
        return total.scatter_add_(1, ids[..., None].expand_as(rows), rows), None

    def _rows(self, x: Tensor, g: Tensor) -> Tensor:
        rows = accumulation_type(g).reshape(len(g), -1, g.shape[-1])
        if self.padding is None:
            return rows
        return rows * (x.reshape(len(x), -1, 1) != self.padding)


@dataclass
class PReLU(Operation):
    """A rectifier with a slope for each channel, or one for all."""

    kind: ClassVar[str] = "prelu"

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns x, with its negative part times the slope."""
        assert self.weight is not None
        return F.prelu(x, self.weight), ()

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns g, times the slope where x is negative."""
        assert self.weight is not None
        slope = self.weight if self.weight.numel() == 1 else by_channel(self.weight, x.ndim)
        return torch.where(x > 0, g, g * slope)

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns the one method: sums over each channel."""
        return [Method("sums", 2 * g[0].numel(), 12 * g[0].numel(), 4 * g[0].numel())]

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``sum g min(x, 0)`` of each channel, ``[B, *shape]``, and None."""
        assert self.weight is not None
        rows = accumulation_type(g) * accumulation_type(x).clamp(max=0)
        channel = 0 if self.weight.numel() == 1 else 2 if self.folded else 1
        dims = [d for d in range(1, rows.ndim) if d != channel]
        return summed(rows, dims).reshape(len(rows), *self.weight.shape), None
