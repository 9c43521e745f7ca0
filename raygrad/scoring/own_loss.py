"""Any loss through its gradient at the logits, checked to be a sum over examples."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.labels import check_labels, check_output
from raygrad.scoring.losses import CROSS_ENTROPY, Loss, NamedLoss, named_loss
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.verdicts import Verdicts

_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)
"""What functions raise at tensors that they do not take."""


def find_loss(loss: str | Loss | None) -> NamedLoss:
    """Returns a loss that gives values and gradients.

    Args:
        loss: A name such as ``label_smoothing=0.1``, a loss of `losses`, any function of logits
            and labels, or None for cross-entropy.

    Raises:
        ConfigError: The name is unknown, or it is no function.
    """
    if loss is None:
        return CROSS_ENTROPY
    if isinstance(loss, str):
        return named_loss(loss)
    if isinstance(loss, NamedLoss):
        return loss
    if not callable(loss):
        raise ConfigError(
            f"loss must be a name or a function of logits and labels, got {type(loss).__name__}. "
            "Give one that returns [B], or the sum over examples."
        )
    return OwnLoss(loss)


@final
class OwnLoss:
    """A function of the user's: of logits ``[B, C]`` and labels to ``[B]``, or to their sum.

    It is computed in float64 where it takes that, else in the logits' own type (float32 at least),
    where examples that the network is sure of lose digits. Every gradient is computed for the batch
    and for its even and odd examples apart: a loss that mixes examples (a mean, a loss of pairs, a
    normalisation by the batch) or draws random numbers gives others there, and is refused. What
    does not come through the logits, such as a penalty on weights, is no part of it.

    Args:
        function: The function, or a module.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._function = function

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, ``[B]``."""
        found = self._call(self._function, logits, labels)
        if found.ndim == 1:
            return found
        rows = zip(logits.split(1), labels.split(1), strict=True)
        return torch.stack([self._call(self._function, *row) for row in rows])

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum over examples."""
        return self._call(self._function, logits, labels).sum()

    def values(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, float64 ``[B]``.

        Raises:
            ConfigError: The function does not take logits and labels, or returns another shape.
        """
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            try:
                return OwnLoss(_doubled(self._function))(logits.double(), labels).double()
            except _REFUSALS as error:
                if isinstance(error, ConfigError):
                    raise
                half = logits.dtype in (torch.float16, torch.bfloat16)
                return self(logits.float() if half else logits, labels).double()

    def check(self, logits: object, labels: Tensor, later: Verdicts | None = None) -> None:
        """Checks that there is a row of logits and a label for each example.

        Raises:
            ConfigError: The shapes or types are wrong.
        """
        if not isinstance(labels, Tensor) or labels.ndim == 0:
            check_labels(labels, -1)
        check_output(logits, len(labels))

    def gradient(self, logits: Tensor, labels: Tensor, later: Verdicts | None = None) -> Tensor:
        """Returns each example's gradient at its own logits, float64 ``[B, C]``.

        Args:
            logits: ``[B, C]``.
            labels: Of the form that the function takes.
            later: Takes what only the device knows: that gradients are finite and of one example.

        Raises:
            ConfigError: The function does not take logits and labels, returns another shape,
                cannot be differentiated, mixes examples, or has no finite gradient.
        """
        try:
            function, typed = _doubled(self._function), logits.detach().double()
            rows = self._gradient(function, typed, labels, later)
        except _REFUSALS as error:
            if isinstance(error, ConfigError) or is_out_of_memory(error):
                raise
            function, typed = self._function, logits.detach()
            typed = typed.float() if typed.dtype in (torch.float16, torch.bfloat16) else typed
            rows = self._tried(function, typed, labels, later)
        _check_finite(rows, typed, later)
        self._check_apart(function, typed, labels, rows, later)
        return rows.double()

    def _tried(
        self, function: Loss, logits: Tensor, labels: Tensor, later: Verdicts | None
    ) -> Tensor:
        try:
            return self._gradient(function, logits, labels, later)
        except _REFUSALS as error:
            if isinstance(error, ConfigError) or is_out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"{self} must take logits {list(logits.shape)} and labels {labels.dtype} "
                f"{list(labels.shape)}, got {type(error).__name__}: {reason}. "
                "Give labels of the form that it takes."
            ) from error

    def _gradient(
        self, function: Loss, logits: Tensor, labels: Tensor, later: Verdicts | None
    ) -> Tensor:
        free = logits.clone().requires_grad_()
        # A clone of each, since a function may write to what it is given.
        with torch.enable_grad(), torch.autocast(logits.device.type, enabled=False):
            total = self._call(function, free.clone(), labels.clone()).sum()
            if not total.requires_grad:
                raise ConfigError(
                    f"{self} must have a gradient at the logits, got a value that does not depend "
                    "on them by autograd. Compute it in torch, without detach, argmax or item."
                )
            found = torch.autograd.grad(total, (free,), allow_unused=True)[0]
        value = total.detach()

        def not_finite() -> ConfigError:
            return ConfigError(
                f"{self} must be finite at finite logits, got {float(value)}. "
                "Compute it from log_softmax or logsigmoid, not from log(softmax)."
            )

        _expect_not(~value.isfinite() & logits.isfinite().all(), not_finite, later)
        return torch.zeros_like(logits) if found is None else found

    def _call(self, function: Loss, logits: Tensor, labels: Tensor) -> Tensor:
        found = function(logits, labels)
        if not isinstance(found, Tensor) or found.shape not in ((), (len(logits),)):
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(
                f"{self} must return one value an example, [{len(logits)}], or their sum, got "
                f"{got}. Sum over the other dimensions."
            )
        return found

    def _check_apart(
        self,
        function: Loss,
        logits: Tensor,
        labels: Tensor,
        rows: Tensor,
        later: Verdicts | None,
    ) -> None:
        """Compares the batch's gradients with those of parts of it, one example alone among them.

        Raises:
            ConfigError: They differ.
        """
        n = len(rows)
        parts = [slice(0, None, 2), slice(1, None, 2), slice(0, 1)] if n > 1 else []
        cases = [(logits[some], labels[some], rows[some]) for some in parts]
        # The first beside another row that no data can make equal to it: a batch of one is a mean
        # of itself, and its own average.
        beside = torch.cat([logits[:1], 0.5 * logits[:1].roll(1, 1) + 0.25])
        cases.append((beside, torch.cat([labels[:1], labels[:1]]), rows[:1]))
        digits = 1e-9 if rows.dtype == torch.float64 else 1e-5
        floor = digits * rows.abs().nan_to_num(0.0, 0.0).amax()
        for some_logits, some_labels, exact in cases:
            found = self._gradient(function, some_logits, some_labels, later)[: len(exact)]
            limit = 1e-4 * exact.abs().amax(1, keepdim=True) + floor
            # A gradient that is not finite, because its logits are not, is compared with nothing.
            wrong = ((found - exact).abs() > limit).any()
            share = found.abs().sum() / exact.abs().sum().clamp(min=1e-300)
            error = functools.partial(self._mixes, share, n / len(some_logits))
            _expect_not(wrong, error, later)

    def _mixes(self, share: Tensor, of_a_mean: float) -> ConfigError:
        """The error, which names the commonest cause."""
        hint = "Make it a sum over examples of what each has alone."
        if abs(float(share) / of_a_mean - 1) < 1e-3:
            hint = "It is a mean over the batch: use reduction='sum' or 'none'."
        return ConfigError(
            f"{self} must be a sum over examples, got a gradient of one example that depends on "
            f"which others are in its batch. {hint}"
        )

    def __str__(self) -> str:
        name = getattr(self._function, "__name__", type(self._function).__name__)
        return f"the loss {name!r}"


def _expect_not(wrong: Tensor, error: Callable[[], Exception], later: Verdicts | None) -> None:
    """Raises the error where something is wrong, now or when somebody reads."""
    if later is not None:
        later.expect_not(wrong, error)
    elif bool(wrong):
        raise error()


def _check_finite(rows: Tensor, logits: Tensor, later: Verdicts | None) -> None:
    wrong = ~rows.isfinite().all(1) & logits.isfinite().all(1)
    at = wrong.int().argmax()
    # Of the first wrong example, the first value that is not finite; nothing is read from a device.
    row = rows.index_select(0, at[None])[0]
    value = row.gather(0, (~row.isfinite()).int().argmax()[None])

    def error() -> ConfigError:
        return ConfigError(
            f"the loss's gradient at finite logits must be finite, got {float(value)} for example "
            f"{int(at)} of the batch. Compute it from log_softmax or logsigmoid, not from "
            "log(softmax)."
        )

    _expect_not(wrong.any(), error, later)


def _doubled(function: Any) -> Any:
    """The same function with the tensors that it holds (class weights) in float64."""
    if isinstance(function, nn.Module):
        return copy.deepcopy(function).double()
    if isinstance(function, functools.partial):
        return functools.partial(
            _doubled(function.func),
            *(_double(value) for value in function.args),
            **_doubles(function.keywords),
        )
    return function


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _doubles(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _double(value) for name, value in values.items()}
