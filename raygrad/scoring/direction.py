"""The direction at the logits that is carried back through a model."""

from torch import Tensor

from raygrad.scoring.labels import as_classes
from raygrad.scoring.losses import NamedLoss
from raygrad.scoring.own_loss import OwnLoss
from raygrad.scoring.verdicts import Verdicts


def direction_of(
    loss: NamedLoss, logits: Tensor, labels: Tensor, later: Verdicts | None
) -> tuple[Tensor, Tensor]:
    """The loss's gradient at the logits, at unit size ``[B, C]``, and that size ``[B]``.

    Every norm is linear in the direction: carried back at unit size, the gradients of
    confidently right examples underflow in no type and no square.

    Args:
        loss: The loss.
        logits: ``[B, C]``.
        labels: What the loss takes.
        later: Takes the checks of values, where nothing shall wait for the device.

    Raises:
        ConfigError: Logits or labels have the wrong type or shape.
        DataError: A label is not a class.
    """
    if later is None:
        loss.check(logits, labels)
    else:
        loss.check(logits, labels, later)
        if not isinstance(loss, OwnLoss):
            # What is a label to a loss of the user's own is for that to say.
            labels = as_classes(labels, logits)
    direction = loss.gradient(logits.detach(), labels, later)
    scale = direction.abs().amax(1, keepdim=True)
    return direction / scale.where(scale > 0, 1.0), scale[:, 0]
