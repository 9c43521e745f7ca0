"""Scores of single examples from the logits alone, all with one sign: higher means harder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.errors import ConfigError, DataError


def check_logits(logits: object, labels: Tensor) -> Tensor:
    """Returns the logits if they and the labels have the right form.

    Args:
        logits: What the model returned; must be floating point, ``[B, C]``.
        labels: int64 ``[B]``, each in ``0..C-1``.

    Raises:
        ConfigError: The logits or the labels have the wrong type or shape.
        DataError: A label is not a class.
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
    check_labels(labels, logits.shape[0])
    if len(labels):
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= logits.shape[1]:
            wrong = low if low < 0 else high
            raise DataError(
                f"labels must be classes 0..{logits.shape[1] - 1}, got {wrong}. "
                "Map the labels to the model's classes."
            )
    return logits


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


def example_scores(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    r"""Scores every example from its logits. Higher means harder, in all five scores.

    With :math:`p = \mathrm{softmax}(z)`, computed in float64 by shifted exponentials:

    .. math::
        \mathrm{loss} &= -\log p_y \\
        \mathrm{el2n} &= \lVert p - \mathrm{onehot}(y) \rVert_2 \\
        \mathrm{margin} &= \max_{k \ne y} p_k - p_y \\
        \mathrm{entropy} &= -\sum_k p_k \log p_k \\
        \mathrm{least\_confidence} &= 1 - \max_k p_k

    Entropy and least confidence do not look at the label. EL2N is of Paul, Ganguli and Dziugaite
    (arXiv 2107.07075), equation 2.

    Args:
        logits: Floating point ``[B, C]``, C at least 2.
        labels: int64 ``[B]``, classes ``0..C-1``.

    Returns:
        ``loss`` (nats, >= 0), ``el2n`` (0..sqrt 2), ``margin`` (-1..1), ``entropy`` (nats,
        0..log C), ``least_confidence`` (0..1 - 1/C), all float32 ``[B]``; ``prediction`` (int64
        ``[B]``, the first of equal maxima) and ``correct`` (bool ``[B]``).

    Raises:
        ConfigError: The logits or the labels have the wrong type or shape.
        DataError: A label is not a class.
    """
    logits = check_logits(logits, labels).detach()
    if logits.shape[1] < 2:
        raise ConfigError(
            f"logits must have at least 2 classes, got {logits.shape[1]}. "
            "Give a binary classifier two outputs."
        )
    z = logits.double()
    p = z.softmax(1)
    prediction = logits.argmax(1)
    column = labels[:, None]
    others = p.scatter(1, column, -1.0)
    rivals = z.scatter(1, column, -torch.inf).logsumexp(1)
    top = p.amax(1)
    not_top = p.scatter(1, prediction[:, None], 0.0).sum(1)
    scores = {
        # -log softmax(z)_y without the difference of near numbers that it is near zero.
        "loss": F.softplus(rivals - z.gather(1, column)[:, 0]),
        "el2n": torch.linalg.vector_norm(logit_gradient(logits, labels), dim=1),
        "margin": others.amax(1) - p.gather(1, column)[:, 0],
        # p log p is 0 at p = 0, where log p is -inf for logits that are -inf (masked classes).
        "entropy": -torch.xlogy(p, p).sum(1),
        # 1 - max p loses its digits near 0, where the sum of the others keeps them.
        "least_confidence": torch.where(top > 0.5, not_top, 1.0 - top),
    }
    result = {name: score.float() for name, score in scores.items()}
    return {**result, "prediction": prediction, "correct": prediction == labels}
