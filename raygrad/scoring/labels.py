"""What logits and labels must look like before anything is computed from them."""

import torch
from torch import Tensor

from raygrad.errors import ConfigError, DataError
from raygrad.scoring.verdicts import Verdicts


def check_output(logits: object, batch: int | None = None) -> Tensor:
    """Returns what a model gave if it is logits.

    Args:
        logits: What the model returned; must be floating point, ``[B, C]``.
        batch: B, where it is known.

    Raises:
        ConfigError: It has the wrong type or shape.
    """
    if not isinstance(logits, Tensor):
        raise ConfigError(
            f"the model must return logits as one tensor [B, C], got {type(logits).__name__}. "
            "Wrap the model so that forward returns the logits alone."
        )
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ConfigError(
            f"logits must be floating point [B, C], got {logits.dtype} {list(logits.shape)}. "
            "Pool or flatten the other dimensions in the model's forward."
        )
    if batch is not None and len(logits) != batch:
        raise ConfigError(
            f"logits must have the shape [{batch}, C], a row an example, got "
            f"{list(logits.shape)}. Keep the batch first in the model's forward."
        )
    return logits


def check_logits(logits: object, labels: Tensor, later: Verdicts | None = None) -> Tensor:
    """Returns the logits if they and the labels have the right form.

    Args:
        logits: What the model returned; must be floating point, ``[B, C]``.
        labels: int64 ``[B]``, each in ``0..C-1``.
        later: Takes the checks of values, where nothing shall wait for the device.

    Raises:
        ConfigError: The logits or the labels have the wrong type or shape.
        DataError: A label is not a class.
    """
    logits = check_output(logits)
    check_labels(labels, logits.shape[0])
    classes = logits.shape[1]
    if later is not None:
        wrong = (labels < 0) | (labels >= classes)
        later.expect_not(wrong.any(), lambda: _no_class(int(labels[wrong][0]), classes))
    elif len(labels):
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= classes:
            raise _no_class(low if low < 0 else high, classes)
    return logits


def _no_class(label: int, classes: int) -> DataError:
    return DataError(
        f"labels must be classes 0..{classes - 1}, got {label}. "
        "Map the labels to the model's classes."
    )


def as_classes(labels: Tensor, logits: Tensor) -> Tensor:
    """Returns labels that are classes, whatever they were: what a check tells of later.

    A GPU ends the process's use of it where an index is out of range.
    """
    return labels if labels.is_floating_point() else labels.clamp(0, logits.shape[1] - 1)


def check_labels(labels: object, batch: int) -> None:
    """Checks that labels are one class index an example.

    Raises:
        ConfigError: Labels are not an int64 tensor ``[batch]``.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ConfigError(f"labels must be an int64 tensor, got {got}. Convert with labels.long().")
    if labels.shape != (batch,):
        raise ConfigError(
            f"labels must have the shape [{batch}], one class index an example, "
            f"got {list(labels.shape)}. Give one label for each image."
        )


def check_soft_labels(
    logits: Tensor, labels: Tensor, *, exclusive: bool, later: Verdicts | None = None
) -> None:
    """Checks labels that give every class a share.

    Args:
        logits: ``[B, C]``.
        labels: ``[B, C]``, each in 0..1.
        exclusive: Whether an example's shares must sum to 1, as those of mixup do.
        later: As of `check_logits`.

    Raises:
        ConfigError: The shapes differ.
        DataError: A share is not in 0..1, or an example's do not sum to 1.
    """
    if labels.shape != logits.shape:
        raise ConfigError(
            f"labels must have the shape {list(logits.shape)[:1]} (classes) or "
            f"{list(logits.shape)} (a share for each class), got {list(labels.shape)}. "
            "Give labels of one of these forms."
        )
    shares = labels.double()
    wrong = ~((shares >= 0) & (shares <= 1))
    verdicts = Verdicts() if later is None else later
    verdicts.expect_not(
        wrong.any(),
        lambda: DataError(
            f"labels must be shares in 0..1, got {float(shares[wrong][0])}. "
            "Give probabilities, or 0 and 1."
        ),
    )
    if exclusive and len(shares):
        off = (shares.sum(1) - 1).abs()
        verdicts.expect_not(
            off.max() > 1e-3,
            lambda: DataError(
                f"an example's soft labels must sum to 1, got {float(shares.sum(1)[off.argmax()])} "
                f"for example {int(off.argmax())}. Normalise them, or use binary_cross_entropy."
            ),
        )
    if later is None:
        verdicts.read()


def check_images(images: object, labels: object) -> Tensor:
    """Returns a batch of images, detached, if there is a label for each.

    Raises:
        ConfigError: There is no example, or there are not as many labels.
    """
    if not isinstance(images, Tensor) or images.ndim < 1 or len(images) == 0:
        got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ConfigError(
            f"images must be a tensor [B, ...] with at least one example, got {got}. "
            "Stack the examples along the first dimension."
        )
    if not isinstance(labels, Tensor) or labels.ndim == 0 or len(labels) != len(images):
        check_labels(labels, len(images))
    return images.detach()
