"""Scores of single examples from the logits alone, all with one sign: higher means harder."""

import torch
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.labels import as_classes, check_logits
from raygrad.scoring.losses import Loss, log_of_others, logit_gradient
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.verdicts import Verdicts


def example_scores(
    logits: Tensor,
    labels: Tensor,
    *,
    loss: str | Loss | None = None,
    later: Verdicts | None = None,
) -> dict[str, Tensor]:
    r"""Scores every example from its logits. Higher means harder, in all five scores.

    With :math:`p = \mathrm{softmax}(z)`, computed in float64 by shifted exponentials:

    .. math::
        \mathrm{loss} &= -\log p_y \\
        \mathrm{el2n} &= \lVert p - \mathrm{onehot}(y) \rVert_2 \\
        \mathrm{margin} &= \log \frac{1 - p_y + p_r}{1 + p_y - p_r}, \quad
                            p_r = \max_{k \ne y} p_k \\
        \mathrm{entropy} &= -\sum_k p_k \log p_k \\
        \mathrm{least\_confidence} &= 1 - \max_k p_k

    Entropy and least confidence do not look at the label. EL2N is of Paul, Ganguli and Dziugaite
    (arXiv 2107.07075), equation 2. The margin orders examples as :math:`p_r - p_y` does, whose sign
    it has, and is :math:`z_r - z_y` for two classes; but that difference is -1 in float32 for
    every example that the network is sure of by 17 nats, where this one keeps its digits.

    Under another loss than cross-entropy the column ``loss`` is that loss. The others stay of the
    softmax and of the label as one class, not of the network's own loss: after label smoothing no
    el2n is near 0, and after a logistic loss a class the softmax only orders the logits.

    Args:
        logits: Floating point ``[B, C]``, C at least 2.
        labels: int64 ``[B]``, classes ``0..C-1``.
        loss: What the column ``loss`` is, as `per_example_grad_norms` takes it; cross-entropy by
            default.
        later: Takes the check of labels, where nothing shall wait for the device.

    Returns:
        ``loss`` (nats, >= 0), ``el2n`` (0..sqrt 2), ``margin`` (nats, -700..700), ``entropy``
        (nats, 0..log C), ``least_confidence`` (0..1 - 1/C), all float32 ``[B]``; ``prediction``
        (int64 ``[B]``, the first of equal maxima) and ``correct`` (bool ``[B]``).

    Raises:
        ConfigError: Logits or labels have the wrong type or shape, or the loss refuses them.
        DataError: A label is not a class.
    """
    logits = check_logits(logits, labels, later).detach()
    labels = labels if later is None else as_classes(labels, logits)
    if logits.shape[1] < 2:
        raise ConfigError(
            f"logits must have at least 2 classes, got {logits.shape[1]}. "
            "Give a binary classifier two outputs."
        )
    prediction = logits.argmax(1)
    scores = {
        "loss": find_loss(loss).values(logits, labels),
        "el2n": torch.linalg.vector_norm(logit_gradient(logits, labels), dim=1),
        "margin": _margin(logits.double(), labels),
        **_confidence(logits.double().softmax(1), prediction),
    }
    result = {name: score.float() for name, score in scores.items()}
    return {**result, "prediction": prediction, "correct": prediction == labels}


def _confidence(p: Tensor, prediction: Tensor) -> dict[str, Tensor]:
    """Entropy and least confidence of probabilities ``[B, C]``, each ``[B]``."""
    top = p.amax(1)
    not_top = p.scatter(1, prediction[:, None], 0.0).sum(1)
    return {
        # p log p is 0 at p = 0, where log p is -inf for logits that are -inf (masked classes).
        "entropy": -torch.xlogy(p, p).sum(1),
        # 1 - max p loses its digits near 0, where the sum of the others keeps them.
        "least_confidence": torch.where(top > 0.5, not_top, 1.0 - top),
    }


def _margin(z: Tensor, labels: Tensor) -> Tensor:
    """The margin of `example_scores`, from logarithms of its four probabilities."""
    # A class that is masked by -inf may be the rival; the label never is.
    rival = z.clamp(min=-1e300).scatter(1, labels[:, None], -torch.inf).argmax(1)
    log_p = z.log_softmax(1)
    label_p, rival_p = (log_p.gather(1, at[:, None])[:, 0] for at in (labels, rival))
    above = torch.logaddexp(log_of_others(z, labels), rival_p)
    return above - torch.logaddexp(log_of_others(z, rival), label_p)
