r"""Which labels are wrong, by confident learning over out-of-sample probabilities.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(JAIR 70, 2021; arXiv 1911.00068). An example is counted as of class :math:`j` where its probability
reaches what examples labelled :math:`j` have on average; what is counted off the diagonal is
probably labelled wrongly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError

Probabilities = NDArray[np.floating]
Labels = NDArray[np.int64]

NONE = -1
"""The class of an example that reaches the threshold of no class."""

OTHERS_WEIGHT = 0.25
"""How much the likeliest other class counts beside the label: measured, benchmarks/audit.py."""

_ERRORS = 0.03
"""The share of wrong labels from which their kinds are estimated."""

_ROUNDING = 1e-6
_CONFIDENCE = 0.95
_LEAST = 1e-38
"""Below this float32 has no probability but 0."""


@dataclass(frozen=True)
class LabelErrors:
    """How many labels of a data set are wrong, as far as its probabilities tell."""

    joint: NDArray[np.float64]
    """The share of examples labelled i that are j, estimated, ``[C, C]``; sums to 1."""
    num_wrong: float
    """Estimated number of wrong labels."""
    low: float
    """Lower end of its 95% interval."""
    high: float
    """Upper end: over draws of the examples, given the probabilities that the network gave. Where
    none is confidently wrong, the share that would show none in 5 of 100 data sets."""


def check_probabilities(probabilities: Probabilities, labels: Labels) -> None:
    """Checks that there is a distribution over the classes for each label.

    Args:
        probabilities: ``[N, C]``, each row in 0..1 and summing to 1.
        labels: ``[N]``, classes ``0..C-1``.

    Raises:
        ConfigError: The shapes do not fit.
        DataError: A row is no distribution, or a label no class.
    """
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise ConfigError(
            f"probabilities must be [N, C] for N labels, got {list(probabilities.shape)} for "
            f"{len(labels)}. Give a row an example."
        )
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(sums - 1) < 1e-3) | (probabilities < 0).any(axis=1))
    if wrong.size:
        raise DataError(
            f"probabilities of an example must be in 0..1 and sum to 1, got a sum of "
            f"{sums[wrong[0]]:g} in row {wrong[0]}. Give the softmax of the logits."
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        strange = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(
            f"labels must be classes 0..{probabilities.shape[1] - 1}, got {strange}. "
            "Give probabilities of all classes."
        )


def class_thresholds(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    r"""Returns the confidence that examples of each class have in it on average.

    .. math:: t_j = \frac{1}{|X_{\tilde y = j}|} \sum_{x \in X_{\tilde y = j}} \hat p(j; x)

    (equation 2). A class without an example has a threshold that nothing reaches.

    Args:
        probabilities: Out-of-sample, ``[N, C]``.
        labels: As they are given, ``[N]``.

    Returns:
        float64 ``[C]``, in 0..1, or infinity.
    """
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, own, minlength=num_classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_classes(
    probabilities: Probabilities, thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Returns the likeliest class among those whose threshold an example reaches (equation 1).

    Args:
        probabilities: ``[N, C]``.
        thresholds: Of `class_thresholds`, ``[C]``.

    Returns:
        int64 ``[N]``; `NONE` for examples that reach none.
    """
    reached = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    best = reached.argmax(axis=1)
    return np.where(reached[np.arange(len(best)), best] >= 0, best, NONE).astype(np.int64)


def confident_joint(
    labels: Labels, found: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Returns how many examples labelled i are confidently j, int64 ``[C, C]`` (equation 1)."""
    part = found != NONE
    cells = labels[part] * num_classes + found[part]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def label_errors(
    labels: Labels, found: NDArray[np.int64], num_classes: int, *, seed: int = 0, draws: int = 1000
) -> LabelErrors:
    r"""Estimates the joint distribution of given and true labels, and how many differ.

    .. math:: \hat Q_{ij} \propto \frac{C_{ij}}{\sum_j C_{ij}} \, |X_{\tilde y = i}|

    (equation 3). The interval resamples examples (a multinomial bootstrap over the cells of the
    count matrix, thresholds held): it holds the chance of which examples there are, and not the
    errors of the network that gave the probabilities. Where no example is confidently wrong,
    resampling finds none either; then the upper end is :math:`N (1 - 0.05^{1/n})` of n examples
    that are confidently of a class (the rule of three), N where none is.

    Args:
        labels: As they are given, ``[N]``.
        found: Of `confident_classes`, ``[N]``.
        num_classes: C.
        seed: Seeds the resampling.
        draws: How often it is resampled.
    """
    counts = confident_joint(labels, found, num_classes).astype(np.float64)
    totals = np.bincount(labels, minlength=num_classes).astype(np.float64)
    joint = _calibrated(counts, totals)
    wrong = _off_diagonal(joint)
    # Of each class only three numbers matter: confidently right, confidently wrong, undecided.
    right = np.diag(counts)
    cells = np.stack([right, counts.sum(1) - right, totals - counts.sum(1)], axis=1).ravel()
    number = totals.sum()
    drawn = np.random.default_rng(seed).multinomial(int(number), cells / number, size=draws)
    drawn = drawn.reshape(draws, num_classes, 3)
    decided = drawn[..., 0] + drawn[..., 1]
    shares = np.where(decided > 0, drawn[..., 1] / np.maximum(decided, 1), 0.0)
    resampled = (shares * drawn.sum(axis=2)).sum(axis=1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    confidently = float(right.sum())
    if confidently == counts.sum():
        high = number * (1 - (1 - _CONFIDENCE) ** (1 / confidently)) if confidently else number
    return LabelErrors(joint / number, float(wrong), float(low), float(high))


def _calibrated(counts: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scales each row of counts to the number of its label; an empty row is all diagonal."""
    rows = counts.sum(axis=1)
    counts = np.where(rows[:, None] > 0, counts, np.eye(len(totals)))
    return counts / counts.sum(axis=1, keepdims=True) * totals[:, None]


def _off_diagonal(table: NDArray[np.float64]) -> float:
    return float(table.sum() - np.trace(table))


def self_confidence(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """Returns 1 - p of the label, in 0..1; higher = likelier labelled wrongly."""
    return 1.0 - probabilities[np.arange(len(labels)), labels].astype(np.float64)


def normalized_margin(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """Returns how far the likeliest other class is ahead, in 0..1; higher = likelier wrong.

    ``(1 + max_{k != y} p_k - p_y) / 2``: the normalised margin of the paper's section 3.3,
    turned so that higher is harder.
    """
    values = probabilities.astype(np.float64)
    rows = np.arange(len(labels))
    own = values[rows, labels]
    values[rows, labels] = -1.0
    return (1.0 + values.max(axis=1) - own) / 2


def log_odds(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    r"""Returns how much likelier another class is; above 0 where one is, higher = likelier wrong.

    .. math:: \log \max_{k \ne y} p_k - \log p_y

    the margin of the logits, turned so that higher is harder: what AUM (Pleiss et al. 2020, arXiv
    2001.10528) averages over a training, of who has not trained on the example. Unlike the margin
    of probabilities it tells apart labels that are all nearly impossible, and unlike the loss it
    asks that another class is likely.

    Args:
        probabilities: ``[N, C]``, C at least 2.
        labels: ``[N]``.

    Returns:
        float64 ``[N]``, finite.
    """
    values = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    rows = np.arange(len(labels))
    own = values[rows, labels]
    values[rows, labels] = -np.inf
    return values.max(axis=1) - own


def tempered_odds(
    probabilities: Probabilities, labels: Labels, weight: float = OTHERS_WEIGHT
) -> NDArray[np.float64]:
    r"""Returns how unlikely the label is, and a little how likely one other class is.

    .. math:: w \log \max_{k \ne y} p_k - \log p_y

    Where any class may be given for another, the chance that a label is wrong goes by
    :math:`(1 - p_y) / p_y`, and so in the order of the loss (w = 0, the score of cleanlab's
    Datalab); where each class is given for one alone, by :math:`p_k / p_y` (w = 1, `log_odds`).
    Which of both it is, is not known.

    Args:
        probabilities: ``[N, C]``, C at least 2.
        labels: ``[N]``.
        weight: w, in 0..1.

    Returns:
        float64 ``[N]``, finite; higher = likelier wrong.
    """
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = -np.log(np.maximum(own, _LEAST))
    return (1 - weight) * loss + weight * log_odds(probabilities, labels)


def noise_odds(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    r"""Returns the log odds that the label is wrong under an estimate of which errors are made.

    .. math:: \log \sum_{k \ne y} p_k M_{ky} - \log p_y

    where :math:`M_{ky}` says how often class k is labelled y, over the mean of all pairs. It is
    what examples say whose label is unlikely: each of them counts as of class k by its posterior,
    where any error were as likely (one step of expectation maximisation from there), and as much
    as the mean is added to every pair. With :math:`M = 1` it has the order of the loss. By far
    the best where classes are taken for one another and a good network judges; it mistakes what a
    weak one confuses for what is labelled wrongly.

    Args:
        probabilities: ``[N, C]``, C at least 2.
        labels: ``[N]``.

    Returns:
        float64 ``[N]``, finite; higher = likelier wrong.
    """
    rows, num_classes = np.arange(len(labels)), probabilities.shape[1]
    others = np.maximum(probabilities.astype(np.float64), _LEAST)
    own = others[rows, labels]
    others[rows, labels] = 0.0
    share = _ERRORS / (num_classes - 1)
    posterior = others * share
    posterior /= (posterior.sum(axis=1) + own * (1 - _ERRORS))[:, None]
    made = np.zeros((num_classes, num_classes))
    np.add.at(made, labels, posterior)  # [labelled, of class]
    mean = made.sum() / (num_classes * (num_classes - 1))
    weights = (made + mean) / (2 * mean) if mean > 0 else np.ones_like(made)
    odds = np.maximum((others * weights[labels]).sum(axis=1), _LEAST)
    return np.log(odds) - np.log(own)


def threshold_margin(
    probabilities: Probabilities, labels: Labels, thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the normalised margin once classes that a network is shy of are evened out.

    Each class's threshold is taken off its probabilities first, and their least value added back,
    as the paper does for classes of unequal confidence (its appendix on ranking by adjusted
    probabilities); rows are scaled to sum to 1.

    Args:
        probabilities: ``[N, C]``.
        labels: ``[N]``.
        thresholds: Of `class_thresholds`, ``[C]``.

    Returns:
        float64 ``[N]``, in 0..1; higher = likelier wrong.
    """
    finite = np.where(np.isfinite(thresholds), thresholds, 1.0)
    shifted = probabilities.astype(np.float64) - finite
    shifted += finite.max()
    shifted /= shifted.sum(axis=1, keepdims=True)
    return normalized_margin(shifted, labels)


def suggested_labels(probabilities: Probabilities, labels: Labels) -> NDArray[np.int64]:
    """Returns the likeliest class of each example, its own where nothing is likelier."""
    best = probabilities.argmax(axis=1)
    rows = np.arange(len(labels))
    keeps = probabilities[rows, labels] >= probabilities[rows, best]
    return np.where(keeps, labels, best).astype(np.int64)
