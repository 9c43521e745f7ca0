"""Tries a model out on two images: how it can be run, and whether its examples stay apart."""

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.apart import DEPENDS, ROUNDING, apart, refuse_drift
from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.fallback import single_run
from raygrad.scoring.itself import refuse_other_branch
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.running import (
    Runner,
    UncopyableModelError,
    has_caches,
    own_buffers,
    state_of,
    without_checkpoints,
)
from raygrad.scoring.sizes import BY_SIZE, goes_by_size
from raygrad.scoring.strays import StrayParameterError
from raygrad.scoring.trace import Trace
from raygrad.scoring.verify import Reference, near, single_reference


@dataclass(frozen=True)
class Trial:
    """What a model did with two images."""

    runner: Runner
    """How it is to be run."""
    double: Trace
    """Its forward pass on both images."""
    single: Trace
    """Its forward pass on the first."""
    reference: Reference
    """Ordinary autograd on each image."""
    loop: str
    """The kind of loop over single examples that is right: ``loop``, or ``single`` where the
    logits of an image beside its copy are not those of the image."""
    beside: bool
    """Whether the reference is of images beside copies of themselves, where ``loop`` is right."""

    @property
    def varies(self) -> bool:
        """Whether the calls of the two passes were not the same."""
        return not same_calls(self.double, self.single)

    def with_copies(self, parameters: Mapping[str, Tensor], pair: Tensor) -> "Trial":
        """The same trial, with references of each image beside a copy of itself.

        Where gradients go by the number of images, each is alone, in the references and in loops.

        Raises:
            ConfigError: They do, and a kernel of the model is not right for one image.
        """
        if self.beside:
            return self
        reference = single_reference(self.runner, parameters, pair, copies=1)
        if not goes_by_size(self.runner, parameters, pair[:1], reference):
            return replace(self, reference=reference, beside=True)
        if self.single.normalises:
            raise ConfigError(BY_SIZE)
        return replace(self, loop="single", beside=True)

    def traces(self, parameters: Mapping[str, Tensor], pair: Tensor) -> tuple[Trace, Trace]:
        """The forward passes on the same two images in another layout."""
        double = trace(self.runner, parameters, pair)
        return double, trace(self.runner, parameters, pair[:1], double.expansions)


def same_calls(double: Trace, single: Trace) -> bool:
    """Whether two passes made the same calls."""
    if len(single.calls) != len(double.calls) or single.count != double.count:
        return False
    return all(a.same_as(b) for a, b in zip(single.calls, double.calls, strict=True))


def try_model(
    model: nn.Module, parameters: Mapping[str, Tensor], pair: Tensor, *, only_last: bool = False
) -> Trial:
    """Runs a model on two images, together and each alone.

    The first runs are made on copies of its modules: the model itself is not run before it is
    known to be left as it was.

    Args:
        model: The model.
        parameters: Its parameters by name.
        pair: The two images.
        only_last: Whether only the last layer's gradient is wanted.

    Raises:
        ConfigError: An example's logits depend on the batch or on chance, the model is changed by
            its forward pass, or it reaches its parameters by ways that nothing can follow.
    """
    with refusing(pair):
        for runner in _runners(model, parameters, pair):
            try:
                return _try(runner, parameters, pair, only_last)
            except UncopyableModelError:
                continue
    raise AssertionError("a model that is not copied can always be run")


@contextmanager
def refusing(images: Tensor) -> Iterator[None]:
    """Says in one line why a model cannot be scored: what it reaches, or what torch says of it.

    Raises:
        ConfigError: It reaches parameters by ways that nothing can follow, or it fails to run
            forward and backward.
    """
    try:
        yield
    except StrayParameterError as stray:
        raise stray.refusal() from None
    except RuntimeError as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            # Another batch size, or another device, may do.
            raise
        words = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"the model must run forward and backward on images {list(images.shape)} of "
            f"{images.dtype}, got {type(error).__name__}: {words} Check that it takes such images "
            "and that autograd can go through it."
        ) from error


def _runners(model: nn.Module, parameters: Mapping[str, Tensor], pair: Tensor) -> Iterator[Runner]:
    # A copy of a scripted part has parameters of its own, which nothing can stand for.
    if not any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        yield Runner(model, drop_caches=has_caches(model) and _only_caches(model, parameters, pair))
    yield Runner(model, by_copy=False)


def _only_caches(model: nn.Module, parameters: Mapping[str, Tensor], pair: Tensor) -> bool:
    """Whether a model says the same without the tensors that it keeps in plain dictionaries."""
    try:
        with torch.enable_grad():
            kept, dropped = (
                Runner(model, drop_caches=drop)(parameters, pair[:1]) for drop in (False, True)
            )
    except (KeyError, UncopyableModelError):
        return False
    return near(dropped, kept)


def _try(runner: Runner, parameters: Mapping[str, Tensor], pair: Tensor, only_last: bool) -> Trial:
    double = trace(runner, parameters, pair)
    single = trace(runner, parameters, pair[:1], double.expansions)
    strays = sorted(double.strays | single.strays)
    if strays:
        raise StrayParameterError(strays)
    if not same_calls(double, single):
        again = trace(runner, parameters, pair)
        if _seen(again) != _seen(double):
            # What one pass keeps outside of the model, the next finds.
            raise StrayParameterError(sorted(_seen(double) ^ _seen(again)))
    if runner.by_copy and not (double.pure and single.pure):
        refuse_drift(runner, parameters, pair[:1])
    quick = _quickly(runner, double, single, parameters, pair, only_last)
    safe, seen = runner, _seen(single)
    if quick is None:
        runner = _again(runner, parameters, pair[:1], double, single)
    if double.pure and single.pure:
        itself = replace(runner, by_copy=False)
        refuse_other_branch(itself, parameters, pair[:1], single.logits)
    if quick is not None:
        return quick
    # A gradient that ends at the last layer passes none of the kernels that are wrong for one.
    runner, reference = _referred(
        runner, safe, seen, parameters, pair, copies=int(not only_last), only_last=only_last
    )
    if only_last and reference.asked == set(parameters):
        reference = single_reference(runner, parameters, pair, copies=1)
    loop = "loop"
    # What a formula makes of an addition in place may differ: only plain runs decide.
    odd = not near(single.logits, reference.logits[:1])
    if odd and not near(_plain(runner, parameters, pair[:1]), reference.logits[:1]):
        # The image beside its copy is not the image alone: only alone it is itself.
        loop, reference = "single", single_reference(runner, parameters, pair, copies=0)
    elif reference.asked == set(parameters) and goes_by_size(
        runner, parameters, pair[:1], reference
    ):
        if double.normalises:
            raise ConfigError(BY_SIZE)
        loop, reference = "single", single_reference(runner, parameters, pair, copies=0)
    if not same_calls(double, single):
        return Trial(runner, double, single, reference, loop, beside=True)
    together = double.logits
    if not near(together, reference.logits):
        together = _plain(runner, parameters, pair)
    if not apart(together, reference.logits, runner, parameters, pair):
        raise ConfigError(DEPENDS)
    return Trial(runner, double, single, reference, loop, beside=True)


def _seen(trace: Trace) -> frozenset[str]:
    """The parameters that have met an activation in a pass."""
    roles = (role for call in trace.calls for role in (call.weight, call.bias) if role)
    return frozenset(trace.unknown).union(*(role.names for role in roles))


def _referred(
    runner: Runner,
    safe: Runner,
    seen: frozenset[str],
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    *,
    copies: int,
    only_last: bool,
    calls: int | None = None,
) -> tuple[Runner, Reference]:
    """The reference by the model itself, where it says what a copy says, else by copies.

    What a model keeps outside of itself, by its identity, a copy computes anew.

    Args:
        runner: The model itself, where that is safe.
        safe: Copies of it, where it can be copied.
        seen: The parameters that copies use.
        parameters: All parameters by name.
        pair: The two images.
        copies: See `single_reference`.
        only_last: Likewise.
        calls: Likewise.
    """
    if runner == safe:
        return runner, single_reference(runner, parameters, pair, copies, only_last, calls)
    try:
        found = single_reference(runner, parameters, pair, copies, only_last, calls)
    except StrayParameterError:
        return safe, single_reference(safe, parameters, pair, copies, only_last)
    if found.unused & seen:
        again = single_reference(safe, parameters, pair, copies, only_last)
        if again.unused != found.unused:
            return safe, again
    return runner, found


def _quickly(
    runner: Runner,
    double: Trace,
    single: Trace,
    parameters: Mapping[str, Tensor],
    pair: Tensor,
    only_last: bool,
) -> Trial | None:
    """The trial of a model in which nothing is suspect: no more than each image alone.

    These runs are the references, and the first is also the second run of the same image. Of the
    kernels that are wrong for a batch of one, normalisation is the only one that is known; where
    another makes norms differ, the caller compares again with each image beside its copy.

    Returns:
        None where anything is not as it should be, and must be looked into.
    """
    if double.draws or single.draws or not same_calls(double, single):
        return None
    if single.normalises and not only_last:
        return None
    safe = runner
    if runner.by_copy and double.pure and single.pure:
        runner = replace(runner, by_copy=False)
    try:
        runner, reference = _referred(
            runner, safe, _seen(single), parameters, pair, copies=0, only_last=only_last,
            calls=single.count,
        )  # fmt: skip
    except (StrayParameterError, ForwardChangedError):
        return None
    if single.normalises and reference.asked == set(parameters):
        return None
    if not near(reference.logits[:1], single.logits, ROUNDING):
        return None
    if not apart(double.logits, reference.logits, runner, parameters, pair):
        return None
    return Trial(runner, double, single, reference, "loop", beside=False)


def _plain(runner: Runner, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
    return single_run(runner, images, parameters, copies=0)[0].detach()


def _again(
    runner: Runner, parameters: Mapping[str, Tensor], image: Tensor, double: Trace, single: Trace
) -> Runner:
    """Runs an image once more, on the model itself where that is safe, and compares the logits.

    Returns:
        How the model is to be run from now on.

    Raises:
        ConfigError: The same image gives other logits.
    """
    drawn = [name for name in double.draws if name in single.draws]
    if runner.by_copy and double.pure and single.pure:
        on_itself = replace(runner, by_copy=False)
        third = trace(on_itself, parameters, image, double.expansions)
        if not third.strays and same_calls(third, single):
            runner = on_itself
        else:
            third = trace(runner, parameters, image, double.expansions)
    else:
        third = trace(runner, parameters, image, double.expansions)
    foreign = [name for name in drawn if name in FOREIGN]
    if foreign or not near(third.logits, single.logits, ROUNDING):
        raise ConfigError(
            "the same image must give the same logits twice, got a model that draws random "
            f"numbers{': ' + drawn[0] if drawn else ' from a generator of its own'}. "
            "Call model.eval(), or turn the noise off."
        )
    return runner


def trace(
    runner: Runner,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    expansions: frozenset[int] | None = None,
) -> Trace:
    """Records a forward pass.

    Raises:
        ConfigError: It draws random numbers, or changes a buffer in place.
    """
    buffers = own_buffers(runner.model)
    held = {**parameters, **buffers}
    versions = {n: 0 if tensor.is_inference() else tensor._version for n, tensor in held.items()}
    anchor = torch.zeros((), requires_grad=True)
    own = images.clone()
    if own.is_floating_point():
        # As when norms are collected: activations require a gradient, parameters do not.
        own = own + anchor.to(own.device, own.dtype)
    before = _foreign_states()
    watch = Trace(runner.model, parameters, own, expansions)
    run = runner.bound(parameters, buffers)
    state = state_of(run) if isinstance(run, nn.Module) else None
    with torch.enable_grad(), without_checkpoints():
        watch.record(run, own)
    watch.pure = state is not None and state == state_of(run)
    for name, tensor in held.items():
        if not tensor.is_inference() and tensor._version != versions[name]:
            raise ConfigError(
                f"the forward pass must leave the model as it is, got a change of {name!r}. "
                "Call model.eval()."
            )
    watch.draws.extend(n for n, drawn in _foreign_states().items() if drawn != before.get(n))
    return watch


FOREIGN = ("from Python's random", "from numpy.random")
"""Generators of others that a forward pass may draw from."""


def _foreign_states() -> dict[str, object]:
    states: dict[str, object] = {FOREIGN[0]: random.getstate()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        states[FOREIGN[1]] = (name, keys.tobytes(), *rest)
    return states
