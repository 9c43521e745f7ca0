"""Scores that need the logits alone; for all of them higher = harder."""

import torch
from torch import Tensor

EXAMPLE_COLUMNS = ("loss", "el2n", "margin", "entropy", "least_confidence", "prediction", "correct")
"""What `example_scores` returns."""


def example_scores(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    r"""Returns the scores of each example that follow from its logits.

    With :math:`p = \mathrm{softmax}(z)` and the one-hot label :math:`y`: ``loss`` is
    :math:`-\log p_y`; ``el2n`` is :math:`\|p - y\|_2` (Paul et al., 2021); ``margin`` is the
    largest other probability minus :math:`p_y`, in [-1, 1]; ``entropy`` is of p, in nats;
    ``least_confidence`` is :math:`1 - \max p`; ``prediction`` the class of the largest logit;
    ``correct`` whether that is the label.

    Args:
        logits: `[B, C]`, of any floating dtype.
        labels: Classes, int64 `[B]`.
    """
    log_p = torch.log_softmax(logits.float(), dim=1)
    p = log_p.exp()
    log_p_label = log_p.gather(1, labels[:, None]).squeeze(1)
    p_label = log_p_label.exp()
    is_label = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    prediction = logits.argmax(1)
    return {
        "loss": -log_p_label,
        "el2n": (p - is_label.float()).norm(dim=1),
        "margin": p.masked_fill(is_label, 0.0).amax(1) - p_label,
        "entropy": -(p * log_p.clamp_min(torch.finfo(p.dtype).min)).sum(1),
        "least_confidence": 1 - p.amax(1),
        "prediction": prediction,
        "correct": prediction == labels,
    }
