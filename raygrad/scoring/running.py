"""Runs a model with tensors of ours in the place of its own, and leaves no trace in it."""

import copy
import pickle
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raygrad.scoring.strays import passing_for, stand_in_for_kept
from raygrad.scoring.swapping import functional_call, standing

_COPY_ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, copy.Error,
                pickle.PicklingError)  # fmt: skip
"""What a model that cannot be copied raises."""


class UncopyableModelError(Exception):
    """The model holds something that Python cannot copy."""


@dataclass(frozen=True)
class Runner:
    """A way to run a model: every run has its own images, its own buffers and given parameters.

    Whatever a forward pass does to its input or to its buffers (a normalisation in place, a
    counter) is done to copies.

    Args:
        model: The model; nothing of it is changed, except by what its forward does to other state
            than tensors where ``by_copy`` is False.
        by_copy: Whether each run is made on a copy of the modules, in which every reference to a
            parameter (in a list, in a partial function) is replaced and caches are empty. It is
            slower by about 0.1 ms a module, so it is for models that need it.
        drop_caches: Whether the copy forgets tensors that were computed earlier and are kept in
            plain dictionaries.
        wide: Whether buffers are given in float64, as the parameters and images then must be.
    """

    model: nn.Module
    by_copy: bool = True
    drop_caches: bool = True
    wide: bool = False

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        images: Tensor,
        *,
        mode: AbstractContextManager[object] | None = None,
        anchor: Tensor | None = None,
    ) -> Any:
        """Returns what the model returns.

        Args:
            tensors: What stands for the parameters, by name.
            images: ``[B, ...]``; the model gets a copy.
            mode: A context to run in.
            anchor: A scalar zero that requires a gradient, to be added to the images, so that
                every activation requires one.

        Raises:
            UncopyableModelError: ``by_copy`` is set and the model cannot be copied.
        """
        buffers = own_buffers(self.model)
        run = self.bound(tensors, widened(buffers) if self.wide else buffers)
        own = images.clone()
        if anchor is not None and own.is_floating_point():
            own = own + anchor.to(own.dtype)
        with without_checkpoints(), mode or nullcontext():
            return run(own)

    def standing(self, tensors: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        """Lets tensors stand for the parameters in the backward pass of a run.

        A function with a backward of its own (a reversible block, a checkpoint) may run a part of
        the model again there, and must find what it found forward. Copies keep it by themselves.
        """
        return nullcontext() if self.by_copy else standing(self.model, tensors)

    def bound(self, tensors: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Any:
        """Returns a function of the images: the model with these parameters and buffers."""
        if self.by_copy:
            return structural_copy(self.model, {**buffers, **tensors}, self.drop_caches)
        model, values = self.model, {**buffers, **tensors}
        if isinstance(model, torch.jit.ScriptModule):
            # Torch swaps the tensors of scripted parts, but not of a scripted whole.
            model = _Around(model)
            values = {f"scripted.{name}": tensor for name, tensor in values.items()}
        return lambda images: functional_call(model, values, (images,))


class _Around(nn.Module):
    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted

    def forward(self, images: Tensor) -> Any:
        return self.scripted(images)


def own_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that can have a gradient, by name: aliases without a graph.

    Indices and quantised weights of integer types cannot; the model keeps them as they are.
    """
    return {
        name: passing_for(_ordinary(tensor.detach()), tensor)
        for name, tensor in model.named_parameters()
        if tensor.is_floating_point() or tensor.is_complex()
    }


def own_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers, by name."""
    found = {name: tensor.detach().clone() for name, tensor in model.named_buffers()}
    kept = {name: tensor for name, tensor in model.named_buffers() if tensor.grad_fn is not None}
    if kept:
        parameters = {id(tensor): name for name, tensor in model.named_parameters()}
        found |= {name: stand_in_for_kept(tensor, parameters) for name, tensor in kept.items()}
    return found


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in float64, where they are real and have fractions."""
    return {
        name: _as_before(tensor.double(), tensor) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _as_before(tensor: Tensor, before: Tensor) -> Tensor:
    """The same tensor, which passes for a parameter where what it was made from did."""
    return passing_for(tensor, before) if isinstance(before, nn.Parameter) else tensor


def _ordinary(tensor: Tensor) -> Tensor:
    """A tensor that autograd takes: those made in inference mode are copied."""
    return tensor.clone() if tensor.is_inference() else tensor


def structural_copy(
    model: nn.Module, tensors: Mapping[str, Tensor], drop_caches: bool
) -> nn.Module:
    """Copies a model's modules and plain state, with given tensors in place of its own.

    Args:
        model: The model.
        tensors: The new tensors of parameters and buffers, by name; they are not copied.
        drop_caches: Whether computed tensors that are kept in plain dictionaries are left out.

    Raises:
        UncopyableModelError: Something in the model cannot be copied.
    """
    named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    memo: dict[int, Any] = {
        id(named[name]): tensor for name, tensor in tensors.items() if name in named
    }
    memo.update((id(t), t) for name, t in named.items() if name not in tensors)
    parameters = {id(tensor): name for name, tensor in model.named_parameters()}
    for module in model.modules():
        for cached in _cached(module):
            # Torch copies no tensor that has a graph.
            memo.setdefault(id(cached), stand_in_for_kept(cached, parameters))
    try:
        copied = copy.deepcopy(model, memo)
    except _COPY_ERRORS as error:
        raise UncopyableModelError(str(error)) from error
    if drop_caches:
        for module in copied.modules():
            _forget(module)
    return copied


def has_caches(model: nn.Module) -> bool:
    """Whether a module keeps tensors in plain dictionaries."""
    return any(
        isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values())
        for module in model.modules()
        for value in _plain(module).values()
    )


def _plain(module: nn.Module) -> dict[str, Any]:
    """A module's attributes that are none of torch's own (parameters, hooks, and so on)."""
    return {name: value for name, value in vars(module).items() if name not in _TORCH_S}


_TORCH_S = frozenset(vars(nn.Module()))


def _cached(module: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    for value in _plain(module).values():
        if isinstance(value, Tensor):
            values = [value]
        elif isinstance(value, dict):
            values = list(value.values())
        elif isinstance(value, list | tuple):
            values = list(value)
        else:
            continue
        found.extend(v for v in values if isinstance(v, Tensor) and v.grad_fn is not None)
    return found


def _forget(module: nn.Module) -> None:
    for value in _plain(module).values():
        if isinstance(value, dict):
            for key in [k for k, v in value.items() if isinstance(v, Tensor)]:
                del value[key]


def state_of(model: nn.Module) -> list[Any]:
    """Everything that a forward pass could change in a model's Python state, to be compared.

    It holds what it has seen, so that no identity is used twice.
    """
    return [(name, _seen(vars(module), 0)) for name, module in model.named_modules()]


def _seen(value: Any, depth: int) -> Any:
    if isinstance(value, Tensor):
        return ("tensor", _Same(value), value._version)
    if value is None or isinstance(value, int | float | str | bytes | complex):
        return value
    if depth < 4 and isinstance(value, dict):
        return {str(k): _seen(v, depth + 1) for k, v in value.items()}
    if depth < 4 and isinstance(value, list | tuple | set):
        return [_seen(v, depth + 1) for v in value]
    return _Same(value)


@dataclass(frozen=True, eq=False)
class _Same:
    """Equal to another only if both hold the very same object."""

    held: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held

    __hash__ = None  # type: ignore[assignment]  # equal by value


class _Direct:
    """Stands for the function of reentrant checkpoints: calls what they would call."""

    @staticmethod
    def apply(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _direct(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands for what other checkpoints do before and after the call: nothing."""
    yield


_REPLACED = {
    "CheckpointFunction": _Direct,
    "_checkpoint_without_reentrant_generator": _direct,
    "_checkpoint_without_reentrant_generator_impl": _direct,
}
_lock, _kept, _depth = threading.Lock(), {}, [0]  # type: ignore[var-annotated]  # kept by use


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Lets ``torch.utils.checkpoint`` call its function directly, and keep all activations.

    A checkpoint runs its part of the forward pass again in the backward pass, where nothing
    watches it, and its reentrant kind refuses gradients of chosen tensors. Results are the same
    without; other threads that checkpoint meanwhile keep more memory for the moment.
    """
    module = sys.modules.get("torch.utils.checkpoint")
    with _lock:
        _depth[0] += 1
        if _depth[0] == 1 and module is not None:
            for name, direct in _REPLACED.items():
                if hasattr(module, name):
                    _kept[name] = getattr(module, name)
                    setattr(module, name, direct)
    try:
        yield
    finally:
        with _lock:
            _depth[0] -= 1
            if _depth[0] == 0:
                for name, original in _kept.items():
                    setattr(module, name, original)
                _kept.clear()
