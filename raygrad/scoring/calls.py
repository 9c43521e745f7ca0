# ruff: noqa: A001, A002 (parsers bind keyword arguments by the names that torch gives them)
"""From a function call in a model's forward to the operation that it is."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.scoring.convolution import Geometry
from raygrad.scoring.normalization import BatchNorm, LayerNorm
from raygrad.scoring.operations import (
    Affine,
    Convolution,
    Embedding,
    Linear,
    Operation,
    PReLU,
)

Parsed = tuple[Tensor | None, Operation]
"""The activation that goes in (None where the output comes from the parameter alone)."""

Parser = Callable[..., Parsed | None]


def _cast(x: Tensor) -> Tensor:
    """Casts an activation as autocast would, where it is on; operations cast their parameters."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Parsed | None:
    if weight.ndim != 2 or input.ndim < 2:
        return None
    return _cast(input), Linear(weight, bias)


def _matmul(input: Tensor, other: Tensor) -> Parsed | None:
    if other.ndim != 2 or input.ndim < 2:
        return None
    return _cast(input), Linear(other, None, transposed=True)


def _convolution(dims: int) -> Parser:
    def parse(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Parsed | None:
        if input.ndim != dims + 2:
            return None
        kernel = tuple(weight.shape[2:])
        steps = _tuple(dilation, dims)
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
            if any(size % 2 for size in total):
                # Even kernels need one more at the end than at the start.
                sides = [s for size in reversed(total) for s in (size // 2, size - size // 2)]
                input = F.pad(input, sides)
                total = [0] * dims
            padding = [size // 2 for size in total]
        elif padding == "valid":
            padding = 0
        assert not isinstance(padding, str)
        geometry = Geometry(kernel, _tuple(stride, dims), _tuple(padding, dims), steps, groups)
        return _cast(input), Convolution(weight, bias, geometry)

    return parse


def _tuple(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * dims if len(value) == 1 else tuple(value)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Parsed | None:
    if training or running_mean is None or running_var is None:
        return None
    return input, BatchNorm(weight, bias, running_mean, running_var, eps)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Parsed | None:
    if torch.is_autocast_enabled(input.device.type):
        input = input.float()
    return input, LayerNorm(weight, bias, tuple(normalized_shape), eps)


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Parsed | None:
    return F.rms_norm(input, list(normalized_shape), None, eps), Affine(weight, None)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Parsed | None:
    x = F.group_norm(input, num_groups, None, None, eps)
    return x, Affine(weight, bias, (1, -1, *[1] * (input.ndim - 2)))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Parsed | None:
    if not use_input_stats:
        return _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        return None
    x = F.instance_norm(input, eps=eps)
    return x, Affine(weight, bias, (1, -1, *[1] * (input.ndim - 2)))


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Parsed | None:
    if max_norm is not None or scale_grad_by_freq:
        return None
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight)
    return input, Embedding(weight, None, padding_idx)


def _prelu(input: Tensor, weight: Tensor) -> Parsed | None:
    return input, PReLU(weight, None)


def _add(input: Tensor, other: Tensor) -> Parsed | None:
    return input, Affine(None, other)


def _mul(input: Tensor, other: Tensor) -> Parsed | None:
    return input, Affine(other, None)


def _expand(input: Tensor, *sizes: Any) -> Parsed | None:
    size = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    shape = tuple(input.expand(*size).shape)
    return None, Affine(None, input, shape=shape)


def _repeat(input: Tensor, *repeats: Any) -> Parsed | None:
    times = repeats[0] if len(repeats) == 1 and not isinstance(repeats[0], int) else repeats
    lead = len(times) - input.ndim
    old = (1,) * lead + tuple(input.shape)
    if any(count != 1 and size != 1 for count, size in zip(times, old, strict=True)):
        return None
    shape = tuple(count * size for count, size in zip(times, old, strict=True))
    return None, Affine(None, input, shape=shape)


def _table(
    entries: Sequence[tuple[Parser, Sequence[Any]]],
) -> Mapping[Any, Parser]:
    return {function: parser for parser, functions in entries for function in functions}


PARSERS = _table(
    [
        (_linear, [F.linear]),
        (_matmul, [torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm]),
        (_convolution(1), [F.conv1d]),
        (_convolution(2), [F.conv2d]),
        (_convolution(3), [F.conv3d]),
        (_batch_norm, [F.batch_norm]),
        (_layer_norm, [F.layer_norm]),
        (_rms_norm, [F.rms_norm]),
        (_group_norm, [F.group_norm]),
        (_instance_norm, [F.instance_norm]),
        (_embedding, [F.embedding]),
        (_prelu, [F.prelu, torch.prelu, Tensor.prelu]),
        (_add, [torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__]),
        (_mul, [torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__]),
        (_expand, [Tensor.expand]),
        (_repeat, [Tensor.repeat]),
    ]
)
"""The functions that have a formula."""

COMMUTES = frozenset(function for function, parser in PARSERS.items() if parser in (_add, _mul))
"""Functions of two tensors in which the parameter may come first."""


IN_PLACE = frozenset([Tensor.add_, Tensor.mul_])
"""Functions that write what they compute to their first tensor, which the model may go on with."""


@functools.cache
def _signature(parser: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(parser)


@functools.cache
def _positions(parser: Callable[..., object]) -> range:
    """How many positional arguments it takes where there are no others; none where any number."""
    parameters = _signature(parser).parameters.values()
    if any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters):
        return range(0)
    return range(sum(p.default is p.empty for p in parameters), len(parameters) + 1)


def parse(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, swapped: bool = False
) -> Parsed | None:
    """Returns the activation and the operation of a call, or None where no formula covers it.

    Args:
        function: A function of ``PARSERS``.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        swapped: The parameter is the first of the two arguments of a commuting function.
    """
    parser = PARSERS[function]
    if swapped:
        args = (args[1], args[0], *args[2:])
    if any(isinstance(t, Tensor) and t.is_complex() for t in (*args, *kwargs.values())):
        # The formulas are of real numbers: a complex gradient has a conjugate in it.
        return None
    if kwargs or len(args) not in _positions(parser):
        try:
            _signature(parser).bind(*args, **kwargs)
        except TypeError:
            # Another form of the call, such as add with alpha: no formula; the fallback takes it.
            return None
    return parser(*args, **kwargs)


def statistics_of_the_batch(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], batch: int
) -> str | None:
    """Says what is wrong with a normalisation of activations that goes by the whole batch.

    Args:
        function: The function that is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        batch: How many examples there are.

    Returns:
        The words of an error; None for every other call.
    """
    if function not in (F.batch_norm, F.instance_norm):
        return None
    parser = PARSERS[function]
    call = _signature(parser).bind(*args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    if function is F.instance_norm:
        if given["use_input_stats"] and given["running_mean"] is not None:
            return (
                "instance normalisation must not update running statistics, got a layer in "
                "training mode that does. Call model.eval()."
            )
        return None
    rows = given["input"].shape[0]
    if not (given["training"] or given["running_mean"] is None) or rows % batch or batch == 1:
        return None
    return (
        "batch normalisation must use its running statistics, got a layer that normalises "
        "by the batch, where no example has a gradient of its own. Call model.eval()."
    )
