"""Looks over a run of a model: which tensors it uses, and how many calls it makes."""

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raygrad.scoring.calls import PARSERS


def _seen_through(function: Any) -> Callable[..., Any]:
    """Returns a torch function that calls its parts in the open, so that a mode can see them.

    Under a function mode, torch's composite functions hand themselves over whole and never call
    their parts. The copy runs the same code, of whatever version is installed, with that one
    check answered "no".
    """
    scope = {**function.__globals__, "has_torch_function": lambda _: False}
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


COMPOSITES = {F.multi_head_attention_forward: _seen_through(F.multi_head_attention_forward)}
"""Functions that are replaced by their parts."""


class Witness(TorchFunctionMode):
    """Counts calls, and names the parameters of the model that are used past their stand-ins.

    It leaves every call as it is.

    Args:
        model: The model that will run.
        parameters: The tensors that stand for its parameters, by name.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.count = 0
        """Calls of functions that may have a formula."""
        self.strays: set[str] = set()
        """Parameters of the model itself that were reached past their stand-ins."""
        self._originals = {
            id(tensor): name
            for name, tensor in model.named_parameters()
            if name in parameters and parameters[name] is not tensor
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        self._note_use(func, tensors_in((args, kwargs)))
        return func(*args, **kwargs)

    def _note_use(self, func: Any, tensors: Iterable[Tensor]) -> None:
        self.count += func in PARSERS
        self.strays.update(self._originals[id(t)] for t in tensors if id(t) in self._originals)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
