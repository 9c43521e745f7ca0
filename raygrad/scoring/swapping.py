"""Runs a model with other tensors, or a module with another forward, in the place of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    modules = list(model.named_modules())
    if any(isinstance(module, torch.jit.ScriptModule) for _, module in modules):
        # Scripted modules keep their tensors elsewhere.
        return torch.func.functional_call(model, dict(tensors), inputs)
    with _swapped(modules, tensors):
        return model(*inputs)


@contextmanager
def standing(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets tensors stand for those of a model that is not called itself.

    Args:
        model: The model; scripted modules in it are left as they are.
        tensors: The tensors that replace parameters and buffers, by name.
    """
    plain = (m for m in model.named_modules() if not isinstance(m[1], torch.jit.ScriptModule))
    with _swapped(plain, tensors):
        yield


@contextmanager
def _swapped(
    modules: Iterable[tuple[str, nn.Module]], tensors: Mapping[str, Tensor]
) -> Iterator[None]:
    stand_in: dict[int, Tensor] = {}
    held: list[tuple[dict[str, Any], str, Tensor]] = []
    for path, module in modules:
        prefix = f"{path}." if path else ""
        both: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for own in both:
            for name, tensor in own.items():
                if tensor is not None:
                    held.append((own, name, tensor))
                    if prefix + name in tensors:
                        stand_in[id(tensor)] = tensors[prefix + name]
    before = [(own, name, tensor) for own, name, tensor in held if id(tensor) in stand_in]
    try:
        for own, name, tensor in before:
            own[name] = stand_in[id(tensor)]
        yield
    finally:
        for own, name, tensor in before:
            own[name] = tensor


@contextmanager
def with_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Puts another ``forward`` on one module, and what was there back.

    Args:
        module: The module; its class is left alone.
        forward: What is called in place of its own.
    """
    held = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        if held is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = held
