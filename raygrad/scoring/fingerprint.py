"""What a model computes by, in a form that tells cheaply whether any of it was changed."""

import functools
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 8
"""How deep objects within objects are looked into."""

_WIDTH = 1000
"""Longer containers are told apart as objects, and by their length, alone."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)

_EMPTIABLE = (*_PLAIN, list, tuple, set, frozenset, Mapping)

_FOREIGN = frozenset({"torch", "numpy", *sys.stdlib_module_names})
"""Packages whose functions and classes are not looked into."""


class Fingerprint:
    """A model's modules, parameters, buffers, attributes, hooks and code, at one moment.

    Two are equal where the same objects stand at the same places, and what they hold besides
    (numbers, texts, lists, settings in objects, the globals that a forward reads) has the same
    values. Nothing is kept alive by it. Values of tensors are not part of it; `versions` tells of
    writes to them.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._classes: dict[type, None] = {}
        self._seen: set[int] = set()
        self._marks: list[Any] = []
        for name, module in model.named_modules(remove_duplicate=False):
            self._marks += (name, _Same(module), type(module))
            self._note_module(module)
        for found in list(self._classes):
            for kind in found.__mro__:
                if kind is nn.Module:
                    break
                self._note_class(kind, 0)
        self._classes.clear()
        self._seen.clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self._marks == other._marks

    __hash__ = None  # type: ignore[assignment]  # equal by value

    def _note_module(self, module: nn.Module) -> None:
        self._classes[type(module)] = None
        for name, value in list(vars(module).items()):
            if name == "_modules":
                continue
            if isinstance(value, _EMPTIABLE) and not value:
                # Most of what a module has: empty dictionaries of hooks.
                self._marks.append(value if isinstance(value, _PLAIN) else name)
                continue
            self._marks.append(name)
            self._note(value, 0)

    def _note(self, value: Any, depth: int) -> None:
        marks = self._marks
        if isinstance(value, _PLAIN):
            # True is 1 and 1 is 1.0 to Python, and not to a forward pass.
            marks += (type(value), value)
        elif isinstance(value, Tensor):
            marks += (_Same(value), value.dtype, value.shape, value.device, value.requires_grad)
        elif isinstance(value, nn.Module | types.ModuleType):
            marks.append(_Same(value))
        elif depth >= _DEPTH or id(value) in self._seen:
            marks.append(type(value))
        elif isinstance(value, list | tuple | set | frozenset | Mapping):
            self._note_container(value, depth)
        elif isinstance(value, types.FunctionType):
            self._note_function(value, depth)
        elif isinstance(value, types.MethodType):
            marks.append(_Same(value.__self__))
            self._note(value.__func__, depth)
        elif isinstance(value, functools.partial):
            self._note((value.func, value.args, value.keywords), depth + 1)
        elif isinstance(value, property):
            self._note((value.fget,), depth + 1)
        elif isinstance(value, type):
            marks.append(_Same(value))
            if not _is_foreign(value):
                self._note_class(value, depth)
        else:
            self._note_object(value, depth)

    def _note_container(self, value: Any, depth: int) -> None:
        self._seen.add(id(value))
        self._marks.append(len(value))
        if len(value) > _WIDTH:
            self._marks.append(_Same(value))
            return
        pairs = value.items() if isinstance(value, Mapping) else ((None, held) for held in value)
        for key, held in list(pairs):
            self._note(key, depth + 1)
            self._note(held, depth + 1)
        # What was made for the moment may be where another is made next.
        self._seen.discard(id(value))

    def _note_class(self, kind: type, depth: int) -> None:
        if id(kind) in self._seen:
            return
        self._seen.add(id(kind))
        for name, value in list(vars(kind).items()):
            if name not in ("__dict__", "__weakref__", "__doc__"):
                self._marks.append(name)
                self._note(value, depth + 1)

    def _note_function(self, function: types.FunctionType, depth: int) -> None:
        self._marks += (_Same(function), _Same(function.__code__))
        if id(function) in self._seen or _is_foreign(function):
            return
        self._seen.add(id(function))
        self._note((function.__defaults__, function.__kwdefaults__), depth + 1)
        for cell in function.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:
                continue
            self._note(held, depth + 1)
        names = _names(function.__code__)
        for name in names:
            held = function.__globals__.get(name)
            self._note(held, depth + 1)
            if isinstance(held, types.ModuleType) and not _is_foreign(held):
                # What is read from a module, such as a file of settings.
                self._note([vars(held).get(part) for part in names], depth + 1)

    def _note_object(self, value: Any, depth: int) -> None:
        self._seen.add(id(value))
        self._marks.append(_Same(value))
        if hasattr(value, "tobytes") and getattr(value, "nbytes", 1 << 20) <= 1 << 16:
            self._marks.append(value.tobytes())
        if _is_foreign(type(value)) and type(value).__module__ != "types":
            return
        self._note(getattr(value, "__dict__", None), depth + 1)
        slots = getattr(type(value), "__slots__", ())
        self._note([getattr(value, name, None) for name in slots], depth + 1)


def _names(code: types.CodeType) -> list[str]:
    """The names that a function and those within it read."""
    names = dict.fromkeys(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names.update(dict.fromkeys(_names(inner)))
    return list(names)


def _is_foreign(value: Any) -> bool:
    """Whether a function, class or module belongs to Python, torch or numpy."""
    home = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return str(home).partition(".")[0] in _FOREIGN


class _Same:
    """Equal to another only where both stand for one object, which still lives."""

    __slots__ = ("_number", "_ref")

    def __init__(self, held: Any) -> None:
        self._number = id(held)
        try:
            self._ref: Any = weakref.ref(held)
        except TypeError:
            # An object that nothing can refer to weakly: its number is all there is.
            self._ref = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or self._number != other._number:
            return False
        if self._ref is None or other._ref is None:
            return self._ref is other._ref
        held = self._ref()
        return held is not None and held is other._ref()

    __hash__ = None  # type: ignore[assignment]  # equal by value


def versions(model: nn.Module) -> list[int]:
    """Returns how often each parameter and buffer was written to in place."""
    return [0 if tensor.is_inference() else tensor._version for tensor in _tensors(model)]


_SAMPLE = 64
"""Numbers of each tensor that are looked at: all of a small one."""


class Sample:
    """Some numbers of each parameter of a model.

    A write by ``.data`` raises no version; an optimizer's changes nearly every number. Parameters
    on a device that would have to be waited for are left out.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = model.modules
        self._plain: list[tuple[Tensor, int]] = []
        self._views: list[Tensor] = []
        self._seen: list[int] = []

    def now(self) -> bytes:
        """Returns the numbers, as bytes: NaN is no other NaN."""
        found = [p for m in self._modules() for p in m._parameters.values() if p is not None]
        seen = [id(parameter) for parameter in found]
        if seen != self._seen or any(p.data_ptr() != place for p, place in self._plain):
            self._seen, self._plain, self._views = seen, [], []
            for parameter in found:
                if type(parameter) is nn.Parameter and parameter.device.type == "cpu":
                    view = _some(parameter.detach())
                    if view is not None:
                        self._plain.append((parameter, parameter.data_ptr()))
                        self._views.append(view)
        if not self._views:
            return b""
        rows = torch.cat([view.reshape(-1) for view in self._views])
        return bytes(rows.view(torch.uint8).numpy().tobytes())


def _some(tensor: Tensor) -> Tensor | None:
    """A view of some numbers, or None where there are none that have fractions."""
    dense = tensor.layout == torch.strided and not tensor.is_quantized
    if not (dense and tensor.is_floating_point() and tensor.numel()):
        return None
    if tensor.is_contiguous():
        return tensor.view(-1)[:: -(-tensor.numel() // _SAMPLE)]
    steps = (slice(None, None, -(-size // 4)) for size in tensor.shape)
    return tensor[tuple(steps)]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for held in (*module._parameters.values(), *module._buffers.values()):
            if held is not None:
                yield held
