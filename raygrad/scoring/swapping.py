"""Runs a model with other tensors in the place of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def functional_call(
    model: nn.Module, tensors: Mapping[str, Tensor], inputs: tuple[Any, ...]
) -> Any:
    """Returns what a model returns with other parameters and buffers.

    ``torch.func.functional_call`` leaves a model in which one module stands at two places with the
    stand-ins in it for good: it swaps the module's tensors twice, and restores what the second
    swap has found (torch 2.14). Here every module is swapped once, and a tensor that several
    modules share is replaced in all of them.

    Args:
        model: The model; it is as it was afterwards, also after an error.
        tensors: The tensors that replace parameters and buffers, by name.
        inputs: What the model is called with.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        # Scripted modules keep their tensors elsewhere.
        return torch.func.functional_call(model, dict(tensors), inputs)
    with _swapped(model, tensors):
        return model(*inputs)


@contextmanager
def _swapped(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    stand_in = {id(named[name]): tensor for name, tensor in tensors.items() if name in named}
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    for module in model.modules():
        both: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in both:
            before.extend(
                (held, name, tensor)
                for name, tensor in held.items()
                if tensor is not None and id(tensor) in stand_in
            )
    try:
        for held, name, tensor in before:
            held[name] = stand_in[id(tensor)]
        yield
    finally:
        for held, name, tensor in before:
            held[name] = tensor
