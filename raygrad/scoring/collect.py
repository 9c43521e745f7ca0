"""The pass that collects: one forward, one backward of input gradients, norms on the way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raygrad.scoring.calls import IN_PLACE, PARSERS, parse
from raygrad.scoring.cost import Method, scratch_budget
from raygrad.scoring.layout import Layout
from raygrad.scoring.operations import Operation
from raygrad.scoring.reductions import Partial, concatenate, owned, reduce_gradient
from raygrad.scoring.strays import refuse_kept
from raygrad.scoring.swapping import with_forward
from raygrad.scoring.trace import Role
from raygrad.scoring.witness import COMPOSITES


@dataclass(frozen=True)
class Site:
    """A call that a plan has a formula for."""

    index: int
    function: Any
    kind: str
    swapped: bool
    layout: Layout
    weight: Role | None
    bias: Role | None
    method: Method
    weight_norms: frozenset[str]
    """The norms to take of the weight here and now; empty where it is not wanted or is deferred."""
    bias_norms: frozenset[str]
    deferred: bool
    """Whether to keep input and gradient, for parameters whose contributions must be summed."""


class ForwardChangedError(Exception):
    """The forward pass has not made the calls that the plan knows."""


@dataclass
class Collector:
    """What one pass has found."""

    partials: dict[str, Partial] = field(default_factory=dict)
    """Partial norms by parameter."""
    deferred: list[tuple[Site, Operation, Tensor | None, Tensor]] = field(default_factory=list)
    """Calls of parameters that are used more than once, or that something is computed from."""
    calls: int = 0
    """A hash of all calls of the forward pass, with their numbers and shapes."""

    def take(self, site: Site, operation: Operation, x: Tensor | None, g: Tensor) -> None:
        """Takes one call's input and output gradient, in the model's layout."""
        x_rows = None if x is None else site.layout.split(x)
        g_rows = site.layout.split(g)
        if site.deferred:
            self.deferred.append((site, operation, x_rows, g_rows))
        if site.weight_norms:
            assert site.weight is not None
            self.partials[site.weight.names[0]] = weight_norms(site, operation, x_rows, g_rows)
        if site.bias_norms:
            assert site.bias is not None
            partial = operation.bias_norms(x_rows, g_rows, site.bias_norms)  # type: ignore[arg-type]  # None where it expands
            self.partials[site.bias.names[0]] = partial

    def put(self, site: Site, weight: Tensor, bias: Tensor) -> None:
        """Takes the explicit per-example gradients of one call."""
        for role, norms, gradient in (
            (site.weight, site.weight_norms, weight),
            (site.bias, site.bias_norms, bias),
        ):
            if norms:
                assert role is not None
                self.partials[role.names[0]] = reduce_gradient(gradient, norms)

    def resolve(
        self, parameters: Mapping[str, Tensor], needed: Mapping[str, frozenset[str]]
    ) -> None:
        """Sums the contributions of the deferred calls, a chunk of examples at a time.

        Args:
            parameters: The tensors that stood for the parameters in the pass, by name.
            needed: The norms of each deferred parameter.
        """
        if not self.deferred or not needed:
            return
        size = sum(parameters[name].numel() for name in needed)
        batch = len(self.deferred[0][3])
        device = self.deferred[0][3].device.type
        step = max(1, 4 * scratch_budget(device) // max(1, 4 * size))
        chunks: dict[str, list[Partial]] = {name: [] for name in needed}
        for start in range(0, batch, step):
            totals = self._sum(slice(start, start + step), parameters, needed)
            for name, norms in needed.items():
                if name in totals:
                    chunks[name].append(reduce_gradient(totals[name], norms))
        for name, found in chunks.items():
            if found:
                self.partials[name] = concatenate(found)
        self.deferred.clear()

    def _sum(
        self, rows: slice, parameters: Mapping[str, Tensor], needed: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        for site, operation, x, g in self.deferred:
            pairs = [(site.weight, operation.weight), (site.bias, operation.bias)]
            wanted = [role is not None and bool(set(role.names) & set(needed)) for role, _ in pairs]
            gradients = operation.gradients(
                x[rows] if x is not None else x,  # type: ignore[arg-type]  # None where it expands
                g[rows], weight=wanted[0], bias=wanted[1],
            )  # fmt: skip
            for (role, tensor), gradient in zip(pairs, gradients, strict=True):
                if role is None or gradient is None or tensor is None:
                    continue
                for name, pulled in _pull_back(role, tensor, gradient, parameters):
                    if name in needed:
                        totals[name] = totals[name] + pulled if name in totals else pulled
        return totals


def _pull_back(
    role: Role, tensor: Tensor, gradient: Tensor, parameters: Mapping[str, Tensor]
) -> Sequence[tuple[str, Tensor]]:
    """Carries per-example gradients of a computed tensor back to what it was computed from."""
    if role.direct:
        return [(role.names[0], gradient.clone())]
    if not tensor.requires_grad:
        return []
    refuse_kept(tensor, parameters)
    names = [name for name in role.names if parameters[name].requires_grad]
    sources = [parameters[name] for name in names]
    found = torch.autograd.grad(
        tensor, sources, gradient.to(tensor.dtype), retain_graph=True, allow_unused=True,
        is_grads_batched=True,
    )  # fmt: skip
    pairs = zip(names, found, strict=True)
    return list(owned({n: pulled for n, pulled in pairs if pulled is not None}).items())


def weight_norms(site: Site, operation: Operation, x: Tensor | None, g: Tensor) -> Partial:
    """Partial norms of the weight at a call, in chunks of examples that keep scratch small."""
    step = max(1, int(scratch_budget(g.device.type) // max(1.0, site.method.scratch_bytes)))
    chunks = [
        operation.weight_norms(
            x[start : start + step] if x is not None else x,  # type: ignore[arg-type]  # None where it expands
            g[start : start + step], site.weight_norms, site.method.name,
        )
        for start in range(0, len(g), step)
    ]  # fmt: skip
    return concatenate(chunks)


class _SiteFunction(torch.autograd.Function):
    """A parametric call whose backward collects norms and returns the input gradient alone.

    Parameters do not require gradients here; the anchor, a scalar that does, starts the graph.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor | None, anchor: Tensor, operation: Operation, site: Site, to: Collector
    ) -> Tensor:
        y, saved = operation.forward(x)  # type: ignore[arg-type]  # None where it expands
        if y._is_view():
            # Products of many rows are views of a matrix that nothing else holds. What a function
            # returns may be changed in place, unless torch knows it for a view.
            y = torch.ops.aten._unsafe_view(y, y.shape)
        if x is not None and not operation.keeps_input:
            # As torch, which lets a model go on to change what it has added to.
            x = x.new_empty(()).expand(x.shape)
        ctx.save_for_backward(x, *saved)
        ctx.operation, ctx.site, ctx.to = operation, site, to
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, *saved = ctx.saved_tensors
        operation, site, wanted = ctx.operation, ctx.site, ctx.needs_input_grad[0]
        at_once = None if site.deferred else operation.one_pass(x, g, input_gradient=wanted)
        if at_once is not None:
            ctx.to.put(site, *at_once[1:])
            return at_once[0], None, None, None, None
        ctx.to.take(site, operation, x, g)
        gradient = operation.input_gradient(x, g, saved) if wanted else None
        return gradient, None, None, None, None


class Watch(TorchFunctionMode):
    """Replaces the planned calls of a forward pass by ones that collect.

    Args:
        sites: The plan's calls, by index among the calls of functions with a formula.
        count: How many such calls the whole pass makes.
        to: Where to collect.
        anchor: A scalar that requires a gradient.
        batch: How many examples go in.
    """

    def __init__(
        self, sites: Mapping[int, Site], count: int, to: Collector, anchor: Tensor, batch: int
    ) -> None:
        super().__init__()
        self._sites, self._expected, self._to, self._anchor = sites, count, to, anchor
        self._batch = batch
        self._count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self._to.calls = hash((self._to.calls, func, _marked(args), _marked(kwargs.items())))
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        if func in PARSERS:
            site = self._sites.get(self._count)
            self._count += 1
            if site is not None:
                return self._collect(site, func, args, kwargs)
        return func(*args, **kwargs)

    def _collect(self, site: Site, func: Any, args: Sequence[Any], kwargs: Any) -> Tensor:
        if func != site.function:
            raise ForwardChangedError
        parsed = parse(func, args, kwargs, swapped=site.swapped)
        if parsed is None or parsed[1].kind != site.kind:
            raise ForwardChangedError
        x, operation = parsed
        operation.batch_dim, operation.folded = site.layout.dim, site.layout.fold > 1
        if func in IN_PLACE:
            assert x is not None
            x = x.clone()
        result: Tensor = _SiteFunction.apply(x, self._anchor, operation, site, self._to)
        layout = site.layout
        if result.ndim <= layout.dim or result.shape[layout.dim] != layout.fold * self._batch:
            # Rows that were picked by their values: no example's are where they were.
            raise ForwardChangedError
        return args[0].copy_(result) if func in IN_PLACE else result

    def finish(self) -> None:
        """Checks that the pass made all the calls of the plan.

        Raises:
            ForwardChangedError: It made more or fewer.
        """
        if self._count != self._expected:
            raise ForwardChangedError


@contextmanager
def within(module: nn.Module, mode: AbstractContextManager[object]) -> Iterator[None]:
    """Lets a mode be on while one module's own forward runs, and off elsewhere.

    Args:
        module: The module; its ``forward`` is replaced on the instance meanwhile.
        mode: The mode; it is entered once a call.

    Raises:
        ForwardChangedError: The module has not been called just once.
    """
    run, calls = module.forward, 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        with mode:
            return run(*args, **kwargs)

    with with_forward(module, forward):
        yield
    if calls != 1:
        raise ForwardChangedError


def _marked(values: Iterable[Any]) -> tuple[Any, ...]:
    """What is compared of a call's arguments: numbers and texts, shapes and types of the rest."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value.shape)
        elif value is None or isinstance(value, int | float | str | torch.dtype):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.append(_marked(value))
        else:
            found.append(type(value))
    return tuple(found)
