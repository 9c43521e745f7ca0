"""The named losses: of one example each, with gradients at the logits that keep their digits.

A loss is any function of logits ``[B, C]`` and labels that returns one value an example, ``[B]``,
or their sum. Those here are what networks are trained with and what their examples are scored by;
`loss_gradient` takes any other one through autograd.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.errors import ConfigError, unknown_name
from raygrad.scoring.labels import check_logits, check_output, check_soft_labels
from raygrad.scoring.verdicts import Verdicts

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits ``[B, C]`` and labels to ``[B]``, or to the sum over examples."""


@runtime_checkable
class NamedLoss(Protocol):
    """A loss that knows its own gradient."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, ``[B]``, in the type of the logits."""

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum over examples, a scalar to train by."""

    def values(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, float64 ``[B]``; near zero it keeps its digits."""

    def gradient(self, logits: Tensor, labels: Tensor, later: Verdicts | None = None) -> Tensor:
        """Returns each example's gradient at its own logits, float64 ``[B, C]``.

        `later` takes what it checks and only the device knows, where it checks anything.
        """

    def check(self, logits: object, labels: Tensor, later: Verdicts | None = None) -> None:
        """Checks logits and labels; `later` takes what only the device knows.

        Raises:
            ConfigError: The shapes or types are wrong.
            DataError: A label is none.
        """


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Gradient of each example's own cross-entropy loss at its logits.

    .. math:: \partial L_i / \partial z_i = \mathrm{softmax}(z_i) - \mathrm{onehot}(y_i)

    There is no mean over the batch, so no example's gradient depends on the batch it is in.

    Args:
        logits: ``[B, C]``.
        labels: int64 ``[B]``.

    Returns:
        float64 ``[B, C]``. The label's entry is minus the sum of the others, not the difference of
        two numbers near one, so that confidently right examples keep their digits.
    """
    column = labels[:, None]
    others = logits.double().softmax(1).scatter_(1, column, 0.0)
    return others.scatter(1, column, -others.sum(1, keepdim=True))


def cross_entropy_values(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns -log softmax(z)_y in float64, ``[B]``.

    It is not the difference of near numbers that it is near zero.
    """
    z, column = logits.double(), labels[:, None]
    rivals = z.scatter(1, column, -torch.inf).logsumexp(1)
    return F.softplus(rivals - z.gather(1, column)[:, 0])


@dataclass(frozen=True)
class CrossEntropy:
    r"""Cross-entropy of the softmax, with label smoothing, class weights and soft labels.

    .. math:: L = -\sum_k t_k w_k \log \mathrm{softmax}(z)_k, \qquad
              t = (1 - \epsilon) y + \epsilon / C

    where y is the label: one-hot for a class, or the shares themselves (mixup, CutMix,
    distillation). It is ``torch.nn.functional.cross_entropy`` with ``reduction="none"``; torch's
    ``"mean"`` with class weights divides by the sum of the batch's weights, which is no loss of a
    single example.

    Args:
        label_smoothing: The share spread over all classes, in [0, 1].
        class_weights: A weight a class, at least 0; none for equal weights.

    Raises:
        ConfigError: A value is out of range.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    _placed: dict[tuple[torch.dtype, torch.device], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """The class weights where they were needed."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigError(
                f"label_smoothing must be in [0, 1], got {self.label_smoothing}. 0.1 is usual."
            )
        if not all(0 <= weight < float("inf") for weight in self.class_weights):
            raise ConfigError(
                f"class_weights must be finite and at least 0, got {self.class_weights}. "
                "Give a weight for each class."
            )

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, ``[B]``; labels are classes ``[B]`` or shares ``[B, C]``."""
        return self._reduced(logits, labels, "none")

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum over examples."""
        return self._reduced(logits, labels, "sum")

    def _reduced(self, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        if labels.is_floating_point():
            labels = labels.to(logits.dtype)
        return F.cross_entropy(
            logits, labels, self._weights(logits), reduction=reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip

    def values(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, float64 ``[B]``."""
        if labels.is_floating_point() or self.label_smoothing:
            return self(logits.double(), labels)
        plain = cross_entropy_values(logits, labels)
        weights = self._weights(plain)
        return plain if weights is None else plain * weights[labels]

    def gradient(self, logits: Tensor, labels: Tensor, later: Verdicts | None = None) -> Tensor:
        """Returns each example's gradient at its own logits, float64 ``[B, C]``."""
        if not labels.is_floating_point() and not self.label_smoothing:
            plain = logit_gradient(logits, labels)
            weights = self._weights(plain)
            return plain if weights is None else plain * weights[labels][:, None]
        z = logits.double()
        target = labels.double() if labels.is_floating_point() else _onehot(labels, z)
        target = (1 - self.label_smoothing) * target + self.label_smoothing / z.shape[1]
        weights = self._weights(z)
        target = target if weights is None else target * weights
        probability = z.softmax(1)
        rows = probability * target.sum(1, keepdim=True) - target
        # The entries sum to 0: the surest one, a difference of near numbers, is what others leave.
        top = probability.argmax(1, keepdim=True)
        others = rows.scatter(1, top, 0.0)
        return others.scatter(1, top, -others.sum(1, keepdim=True))

    def check(self, logits: object, labels: Tensor, later: Verdicts | None = None) -> None:
        """Checks logits and labels, and that there is a weight for every class; as others do.

        Raises:
            ConfigError: The shapes or types are wrong.
            DataError: A label is no class, or shares do not sum to 1.
        """
        checked = check_output(logits)
        if isinstance(labels, Tensor) and labels.is_floating_point() and labels.ndim == 2:
            check_soft_labels(checked, labels, exclusive=True, later=later)
        else:
            check_logits(logits, labels, later)
        if self.class_weights and len(self.class_weights) != checked.shape[1]:
            raise ConfigError(
                f"class_weights must be {checked.shape[1]}, one a class, got "
                f"{len(self.class_weights)}. Give a weight for each class."
            )

    def _weights(self, like: Tensor) -> Tensor | None:
        if not self.class_weights:
            return None
        at = like.dtype, like.device
        if at not in self._placed:
            # Once: a copy from the host waits for the device. Later calls may be differentiated.
            with torch.inference_mode(False):
                self._placed[at] = torch.tensor(self.class_weights, dtype=at[0], device=at[1])
        return self._placed[at]


@dataclass(frozen=True)
class BinaryCrossEntropy:
    r"""A logistic loss for each class, summed: for examples with several labels, or none.

    .. math:: L = \sum_k -t_k \log \sigma(z_k) - (1 - t_k) \log \sigma(-z_k)

    Labels are ``[B, C]`` in 0..1, or one class an example, ``[B]``, which stands for its one-hot.
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, ``[B]``."""
        target = self._target(logits, labels)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum over examples."""
        return self(logits, labels).sum()

    def values(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, float64 ``[B]``."""
        return self(logits.double(), labels)

    def gradient(self, logits: Tensor, labels: Tensor, later: Verdicts | None = None) -> Tensor:
        """Returns each example's gradient at its own logits, float64 ``[B, C]``."""
        z = logits.double()
        target = self._target(z, labels)
        return (1 - target) * z.sigmoid() - target * (-z).sigmoid()

    def check(self, logits: object, labels: Tensor, later: Verdicts | None = None) -> None:
        """Checks logits and labels; `later` takes what only the device knows.

        Raises:
            ConfigError: The shapes or types are wrong.
            DataError: A label is no class, or not in 0..1.
        """
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            check_logits(logits, labels, later)
        else:
            check_soft_labels(check_output(logits), labels, exclusive=False, later=later)

    @staticmethod
    def _target(logits: Tensor, labels: Tensor) -> Tensor:
        return _onehot(labels, logits) if labels.ndim == 1 else labels.to(logits.dtype)


@dataclass(frozen=True)
class Focal:
    r"""Focal loss: cross-entropy that counts less the surer the network is of the label.

    .. math:: L = -(1 - p_y)^\gamma \log p_y, \qquad p = \mathrm{softmax}(z)

    of Lin et al. (arXiv 1708.02002), equation 4, for one class an example.

    Args:
        gamma: The focusing exponent, at least 0; 0 is cross-entropy.

    Raises:
        ConfigError: gamma is negative or not finite.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < float("inf"):
            raise ConfigError(f"gamma must be at least 0, got {self.gamma}. 2 is usual.")

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, ``[B]``; labels are classes ``[B]``."""
        cross_entropy = F.cross_entropy(logits, labels, reduction="none")
        if not self.gamma:
            return cross_entropy
        return (self.gamma * log_of_others(logits, labels)).exp() * cross_entropy

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum over examples."""
        return self(logits, labels).sum()

    def values(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each example's loss, float64 ``[B]``."""
        z = logits.double()
        rest = log_of_others(z, labels) if self.gamma else torch.zeros_like(z[:, 0])
        return (self.gamma * rest).exp() * cross_entropy_values(z, labels)

    def gradient(self, logits: Tensor, labels: Tensor, later: Verdicts | None = None) -> Tensor:
        """Returns each example's gradient at its own logits, float64 ``[B, C]``."""
        z = logits.double()
        log_rest = log_of_others(z, labels)
        cross_entropy = cross_entropy_values(z, labels)
        # d L / d z = (p - onehot) (q^gamma - gamma p q^(gamma - 1) log p), with q = 1 - p.
        inner = ((self.gamma - 1) * log_rest - cross_entropy).exp() * cross_entropy
        scale = (self.gamma * log_rest).exp() + self.gamma * inner
        return logit_gradient(z, labels) * scale[:, None]

    def check(self, logits: object, labels: Tensor, later: Verdicts | None = None) -> None:
        """Checks logits and labels; `later` takes what only the device knows.

        Raises:
            ConfigError: The shapes or types are wrong.
            DataError: A label is no class.
        """
        check_logits(logits, labels, later)


def log_of_others(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns log(1 - p_y), without the difference that 1 - p_y would be; ``[B]``, -700..0."""
    rivals = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    # The exponential of 700 is still a number, so that no product with it is undefined.
    return (rivals - logits.logsumexp(1)).clamp(min=-700.0)


def _onehot(labels: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, labels[:, None], 1.0)


CROSS_ENTROPY = CrossEntropy()
"""What is meant where no loss is named."""

LOSSES: dict[str, str] = {
    "cross_entropy": "of the softmax; labels are classes, or shares of classes (mixup)",
    "label_smoothing": "cross_entropy with label smoothing, 0.1 or label_smoothing=SHARE",
    "class_weights": "cross_entropy with a weight a class, class_weights=W0,W1,...",
    "binary_cross_entropy": "a logistic loss a class, summed; several labels an example",
    "focal": "cross_entropy times (1 - p)^2, or focal=GAMMA",
}
"""The named losses, each in a line."""


def named_loss(name: str) -> CrossEntropy | BinaryCrossEntropy | Focal:
    """Returns the loss of a name such as ``label_smoothing=0.1``.

    Args:
        name: A key of ``LOSSES``, for some with ``=`` and a value.

    Raises:
        ConfigError: There is no such loss, or its value is none.
    """
    kind, _, value = name.partition("=")
    if kind not in LOSSES:
        raise ConfigError(unknown_name("loss", kind, LOSSES))
    if kind in ("cross_entropy", "binary_cross_entropy"):
        if "=" in name:
            raise ConfigError(f"{kind} must come without a value, got {name!r}. Name it alone.")
        return CROSS_ENTROPY if kind == "cross_entropy" else BinaryCrossEntropy()
    try:
        numbers = tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise ConfigError(f"a loss's value must be numbers, got {name!r}. {_usage(kind)}") from None
    if kind == "class_weights":
        if not numbers:
            raise ConfigError(f"class_weights must have weights, got {name!r}. {_usage(kind)}")
        return CrossEntropy(class_weights=numbers)
    if len(numbers) > 1 or ("=" in name and not numbers):
        raise ConfigError(f"{kind} must have one value, got {name!r}. {_usage(kind)}")
    if kind == "focal":
        return Focal(*numbers)
    return CrossEntropy(label_smoothing=numbers[0] if numbers else 0.1)


def _usage(kind: str) -> str:
    return f"It is {LOSSES[kind]}."
