"""Normalisations whose affine parameters have a formula of their own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.scoring.cost import Method
from raygrad.scoring.layout import Layout
from raygrad.scoring.operations import Gradients, OnePass, Operation, by_channel, summed
from raygrad.scoring.reductions import accumulation_type


@dataclass
class BatchNorm(Operation):
    """Batch normalisation in eval mode: a fixed affine map of every channel."""

    kind: ClassVar[str] = "batch_norm"
    mean: Tensor
    variance: Tensor
    eps: float

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the fixed affine map of every channel."""
        output = F.batch_norm(
            x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.eps
        )
        return output, ()

    def scale(self) -> Tensor:
        """1 / sigma of every channel."""
        return torch.rsqrt(self.variance + self.eps)

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns ``g * weight / sigma``."""
        scale = self.scale() if self.weight is None else self.scale() * self.weight
        return g * by_channel(scale, g.ndim).to(g.dtype)

    def one_pass(self, x: Tensor, g: Tensor, *, input_gradient: bool) -> OnePass | None:
        """Returns all three from the batch kernel, the batch folded into its channels."""
        # The batch is folded into the channels of the ordinary backward kernel. For a batch of one
        # that kernel takes a gradient of other strides for a contiguous one (torch 2.14).
        if self.folded or not x.is_contiguous() or x.dtype != self.mean.dtype or x.dtype != g.dtype:
            return None
        n, channels = x.shape[:2]
        shape = (1, n * channels, *x.shape[2:])
        weight = self.mean.new_ones(channels) if self.weight is None else self.weight
        gx, gw, gb = torch.ops.aten.native_batch_norm_backward(
            g.contiguous().view(shape), x.view(shape), weight.repeat(n), self.mean.repeat(n),
            self.variance.repeat(n), None, None, False, self.eps, (input_gradient, True, True),
        )  # fmt: skip
        return gx.view(x.shape) if input_gradient else None, gw.view(n, -1), gb.view(n, -1)

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns the one method: sums over each channel."""
        return [Method("channel_sums", 4 * x[0].numel(), 12 * x[0].numel())]

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``sum g (x - mean) / sigma`` and ``sum g`` of each channel, ``[B, C]``."""
        x, g = accumulation_type(x), accumulation_type(g)
        channel = 2 if self.folded else 1
        others = [d for d in range(1, x.ndim) if d != channel]
        bias_gradient = summed(g, others)
        if not weight:
            return None, bias_gradient
        shape = [1] * x.ndim
        shape[channel] = -1
        centred = (x - self.mean.view(shape)).mul_(self.scale().view(shape))
        return summed(centred.mul_(g), others), bias_gradient if bias else None


@dataclass
class LayerNorm(Operation):
    """Normalisation over the last dimensions of one example, with an affine map."""

    kind: ClassVar[str] = "layer_norm"
    shape: tuple[int, ...]
    eps: float

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the normalised rows, and their means and 1 / sigma."""
        y, mean, rstd = torch.native_layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return y, (mean, rstd)

    def fits(self, layout: Layout, y: Tensor) -> bool:
        """Whether the batch is not among the normalised dimensions."""
        return layout.dim < y.ndim - len(self.shape)

    def input_gradient(self, x: Tensor, g: Tensor, saved: Sequence[Tensor]) -> Tensor | None:
        """Returns the gradient through the rows' own statistics."""
        mean, rstd = saved
        gradient: Tensor = torch.ops.aten.native_layer_norm_backward(
            g, x, self.shape, mean, rstd, self.weight, self.bias, (True, False, False)
        )[0]
        return gradient

    def methods(self, x: Tensor, g: Tensor, norms: Collection[str]) -> list[Method]:
        """Returns the one method: sums over the example's rows."""
        return [Method("row_sums", 4 * x[0].numel(), 20 * x[0].numel(), 8 * x[0].numel())]

    def gradients(self, x: Tensor, g: Tensor, *, weight: bool, bias: bool) -> Gradients:
        """Returns ``sum g xhat`` and ``sum g`` over the example's rows, ``[B, *shape]``."""
        x, g = accumulation_type(x), accumulation_type(g)
        rows = list(range(1, x.ndim - len(self.shape)))
        weight_gradient = None
        if weight:
            weight_gradient = summed(F.layer_norm(x, self.shape, eps=self.eps).mul_(g), rows)
        return weight_gradient, summed(g, rows) if bias else None
