"""Whether examples stay apart, and calls of the same image alike."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.running import Runner, own_buffers, widened, without_checkpoints
from raygrad.scoring.verify import is_half, near

DEPENDS = (
    "no example's logits may depend on the other examples of its batch, got a model in which they "
    "do (statistics, a scale or an order that is taken over the whole batch). Make it treat "
    "every example apart, or score batches of one."
)

ROUNDING = 1e-5
"""How far the logits of two runs may differ by rounding alone, relative to the largest."""


def apart(
    together: Tensor,
    alone: Tensor,
    runner: Runner,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
) -> bool:
    """Whether two images have the logits together that each has alone.

    Where the difference could be rounding and could be a weak dependence, both are computed in
    float64, which tells them apart.

    Args:
        together: The logits of both in one batch, ``[2, C]``.
        alone: Those of each by itself.
        runner: How the model is run.
        parameters: Its parameters by name.
        pair: The images.
    """
    if near(together, alone, ROUNDING):
        return True
    if not near(together, alone):
        return False
    if is_half(together) or not pair.is_floating_point():
        return True
    wide, tensors = replace(runner, wide=True), widened(parameters)
    try:
        with torch.no_grad():
            rows = [wide(tensors, images.double()) for images in (pair, pair[:1], pair[1:])]
    except (RuntimeError, TypeError, ValueError):
        # It holds tensors of one type that are no buffers of it: float32 says what there is to say.
        return True
    return near(rows[0], torch.cat(rows[1:]), 1e-9)


def refuse_drift(runner: Runner, parameters: Mapping[str, Tensor], image: Tensor) -> None:
    """Refuses a model whose own state, which every call changes, changes the logits.

    Args:
        runner: Runs it on copies.
        parameters: Its parameters by name.
        image: ``[1, ...]``.

    Raises:
        ConfigError: A second call on the same image gives other logits.
    """
    with torch.enable_grad(), without_checkpoints():
        run = runner.bound(parameters, own_buffers(runner.model))
        first, second = run(image.clone()), run(image.clone())
    both = isinstance(first, Tensor) and isinstance(second, Tensor)
    if both and not near(second, first, ROUNDING):
        raise ConfigError(
            "the same image must give the same logits twice, got a model that keeps something of "
            "every call (a counter, a memory, a running mean) and goes by it. Turn that off, or "
            "empty it in forward."
        )
