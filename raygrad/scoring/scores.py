"""Scores of single examples from the logits alone, all with one sign: higher means harder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.labels import check_logits
from raygrad.scoring.losses import logit_gradient


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
