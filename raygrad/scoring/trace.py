"""Watches one forward pass: which parameters meet which activations, in which calls."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.calls import COMMUTES, IN_PLACE, PARSERS, parse, statistics_of_the_batch
from raygrad.scoring.graph import leaves_of
from raygrad.scoring.operations import Affine, Operation
from raygrad.scoring.strays import kept_from_before
from raygrad.scoring.witness import COMPOSITES, Witness, tensors_in

NORMALISATIONS = frozenset(
    [F.batch_norm, F.instance_norm, torch.batch_norm, torch.instance_norm, torch.native_batch_norm]
)
"""What torch computes by its batch normalisation, instances as the channels of one image: its
backward pass is wrong for one image in a transposed layout."""

_SHAPE_ONLY = frozenset(
    [Tensor.type_as, Tensor.expand_as, Tensor.view_as, Tensor.reshape_as, Tensor.to]
)
"""Functions that take nothing of their second tensor but its shape or type."""


_NO_WRITES = frozenset(["requires_grad_", "share_memory_", "detach_", "rename_"])
"""Functions with the name of one that writes to its tensor, and that do not."""

_AUGMENTED = frozenset(
    f"__i{word}__"
    for word in ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "and", "or",
                 "xor", "lshift", "rshift")
)  # fmt: skip
"""Functions of augmented assignments."""


@dataclass(frozen=True)
class Role:
    """What a tensor argument is made of: the names of parameters."""

    names: tuple[str, ...]
    direct: bool
    """Whether it is the parameter itself, not something computed from it."""


@dataclass
class Call:
    """One call in which parameters meet an activation by a known formula."""

    index: int
    function: Any
    operation: Operation
    weight: Role | None
    bias: Role | None
    swapped: bool
    x: Tensor | None
    y: Tensor

    def same_as(self, other: "Call") -> bool:
        """Whether both are the same call of the same model, in two passes."""
        mine = (self.index, self.function, self.weight, self.bias, self.swapped)
        return mine == (other.index, other.function, other.weight, other.bias, other.swapped)


class Trace(Witness):
    """Records a forward pass.

    Args:
        model: The model that will run, for names in errors.
        parameters: The tensors that stand for its parameters, by name.
        images: The batch that will go in.
        expansions: Which expansions of parameters go over the batch, by call index, if an earlier
            trace has found out; None to decide from the shapes.

    What is computed from the images is known by its identity, and beyond functions that a mode
    does not see (scripted parts, functions with a backward of their own) by its requiring a
    gradient: the images do, parameters do not.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, Tensor],
        images: Tensor,
        expansions: frozenset[int] | None = None,
    ) -> None:
        super().__init__(model, parameters)
        self.calls: list[Call] = []
        self.unknown: set[str] = set()
        """Parameters that meet an activation without a formula."""
        self.logits = torch.empty(0)
        """What came out, detached."""
        self.head: Call | None = None
        """The call whose result came out, as it was."""
        self.hooked = False
        """Whether it hangs hooks on activations, which must then require gradients."""
        self.normalises = False
        """Whether it normalises by a kernel that is wrong for one image in some layouts."""
        self.pure = False
        """Whether the pass left the Python state of the model that it ran on as it was."""
        self.draws: list[str] = []
        """Where numbers were drawn from generators of the model's own."""
        self._model = self._running = model
        self._batch = len(images)
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        self._sources: dict[int, tuple[str, ...]] = {
            id(tensor): (name,) for name, tensor in parameters.items()
        }
        self._expansions = expansions
        self._tainted = {id(images)}
        self._storages = {tensor.untyped_storage()._cdata for tensor in parameters.values()}
        # Ids are of living tensors only if nothing dies meanwhile.
        self._alive: list[Any] = [images, parameters]

    def record(self, run: Callable[[Tensor], Any], images: Tensor) -> None:
        """Runs the forward pass on the images, which must be those that were announced."""
        if isinstance(run, nn.Module):
            # A copy: it is its modules that errors will be about.
            self._running = run
        with self:
            output = run(images)
        if isinstance(output, Tensor):
            self.logits = output.detach()
            if output._version == 0:
                self.head = next((call for call in self.calls if call.y is output), None)
            originals = dict(self._model.named_parameters())
            names = {id(tensor): name for name, tensor in originals.items()}
            self.strays.update(names[id(t)] for t in leaves_of(output) if id(t) in names)
            self.strays.update(kept_from_before(output, {}))

    @property
    def expansions(self) -> frozenset[int]:
        """The calls that expand a parameter over the batch."""
        return frozenset(call.index for call in self.calls if call.x is None)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in COMPOSITES:
            return super().__torch_function__(func, types, args, kwargs)
        kwargs = kwargs or {}
        self.hooked = self.hooked or func in (Tensor.register_hook, Tensor.retain_grad)
        self.normalises = self.normalises or func in NORMALISATIONS
        tensors = list(tensors_in((args, kwargs)))
        self._refuse_writes(func, args, kwargs)
        self._note_use(func, tensors)
        made_of = [tensor for tensor in tensors if id(tensor) in self._sources]
        tainted = any(self._is_activation(tensor) for tensor in tensors)
        if func in PARSERS:
            if tainted:
                self._refuse_statistics(func, args, kwargs)
            if made_of:
                call = self._site(func, args, kwargs)
                if call is not None:
                    self.calls.append(call)
                    result = args[0].copy_(call.y) if func in IN_PLACE else call.y
                    self._note(result, self._tainted)
                    return result
        result = self._run(func, args, kwargs)
        outputs = list(tensors_in(result))
        writes = getattr(func, "__name__", "") == "__setitem__"
        if writes and (tainted or made_of):
            outputs = [args[0]]
            tainted = True
        if made_of and tainted and outputs and func not in _SHAPE_ONLY:
            self.unknown.update(name for t in made_of for name in self._sources[id(t)])
        for output in outputs:
            if tainted:
                self._note(output, self._tainted)
            elif made_of and id(output) not in self._names:
                names = sorted({name for t in made_of for name in self._sources[id(t)]})
                self._sources[id(output)] = tuple(names)
                self._alive.append(output)
        return result

    def _is_activation(self, tensor: Tensor) -> bool:
        return id(tensor) in self._tainted or tensor.requires_grad

    def _note(self, tensor: Tensor, into: set[int]) -> None:
        into.add(id(tensor))
        self._alive.append(tensor)

    def _run(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        before = random_state()
        result = func(*args, **kwargs)
        if isinstance(kwargs.get("generator"), torch.Generator):
            self.draws.append(f"{_name(func)} in {calling_module(self._running)}")
        if not torch.equal(before, random_state()):
            raise ConfigError(
                f"the forward pass must not draw random numbers, got {_name(func)} in "
                f"{calling_module(self._running)}. Call model.eval(), or turn the noise off."
            )
        return result

    def _site(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call | None:
        """Returns the call if a formula covers it."""
        swapped = func in COMMUTES and len(args) > 1
        swapped = swapped and isinstance(args[1], Tensor) and self._is_activation(args[1])
        if swapped and _name(func).endswith("_"):
            return None
        parsed = parse(func, args, kwargs, swapped=swapped)
        if parsed is None:
            return None
        x, operation = parsed
        if x is None and not self._over_batch(operation):
            return None
        if x is not None and not any(self._is_activation(t) for t in tensors_in((args, kwargs))):
            return None
        roles = [self._role(tensor) for tensor in (operation.weight, operation.bias)]
        activations = [t for t in (operation.weight, operation.bias) if t is not None]
        if any(self._is_activation(tensor) for tensor in activations) or not any(roles):
            return None
        y, _ = operation.forward(x)  # type: ignore[arg-type]  # None where it expands
        return Call(self.count - 1, func, operation, roles[0], roles[1], swapped, x, y)

    def _refuse_statistics(self, func: Any, args: Sequence[Any], kwargs: Any) -> None:
        """Refuses normalisation by the batch: of activations whose examples are its rows.

        A weight may be standardised so, and so may a batch that is folded into the channels.
        """
        words = statistics_of_the_batch(func, args, kwargs, self._batch)
        if words is not None:
            raise ConfigError(f"{words} It is in {calling_module(self._running)}.")

    def _refuse_writes(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuses what would change the model's own parameters, before it does."""
        name = _name(func)
        to: list[Any] = [*tensors_in(kwargs.get("out"))]
        in_place = name.endswith("_") and not name.endswith("__") and name not in _NO_WRITES
        if args and (in_place or name == "__setitem__" or name in _AUGMENTED):
            to.append(args[0])
        if func is F.embedding and inspect.signature(func).bind(*args, **kwargs).arguments.get(
            "max_norm"
        ):
            to.append(inspect.signature(func).bind(*args, **kwargs).arguments["weight"])
        for tensor in to:
            if not isinstance(tensor, Tensor) or id(tensor) not in self._sources:
                continue
            if tensor.untyped_storage()._cdata in self._storages:
                names = ", ".join(self._sources[id(tensor)])
                raise ConfigError(
                    f"the forward pass must leave the model as it is, got {name} in "
                    f"{calling_module(self._running)}, which changes {names} in place. Change "
                    "parameters before they are scored, not in forward."
                )

    def _over_batch(self, operation: Operation) -> bool:
        if self._expansions is not None:
            return self.count - 1 in self._expansions
        assert isinstance(operation, Affine)
        shape, source = operation.shape, operation.bias
        assert shape is not None
        assert source is not None
        lead = len(shape) - source.ndim
        return shape[0] == self._batch and (lead > 0 or source.shape[0] == 1)

    def _role(self, tensor: Tensor | None) -> Role | None:
        if tensor is None or id(tensor) not in self._sources:
            return None
        return Role(self._sources[id(tensor)], id(tensor) in self._names)


def _name(func: Any) -> str:
    return getattr(func, "__name__", str(func))


def random_state() -> Tensor:
    """The states of the default random generators, joined."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def calling_module(model: nn.Module) -> str:
    """Names the innermost module of a model whose forward is running, from the Python stack."""
    names = {id(module): name for name, module in model.named_modules()}
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            name = names[id(owner)]
            return f"module {name!r} ({type(owner).__name__})" if name else type(model).__name__
        frame = frame.f_back  # type: ignore[assignment]  # ends at None
    return type(model).__name__
