"""What scores say about a data set: skew of classes, agreement of networks, shape of the scores."""

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import DataError

Floats = NDArray[np.float64]


def top_order(scores: NDArray[np.floating], ties: NDArray[np.generic] | None = None) -> NDArray:
    """Returns positions from the largest score to the smallest, int64 `[N]`.

    Args:
        scores: Finite scores, `[N]`.
        ties: What orders equal scores, such as `random_bits` of the keys; by default the position.

    Raises:
        DataError: A score is not finite.
    """
    _check_finite(scores)
    ties = np.arange(len(scores)) if ties is None else ties
    return np.lexsort((ties, -np.asarray(scores).astype(np.float64)))


def label_entropy(scores: NDArray[np.floating], labels: NDArray[np.generic]) -> Floats:
    r"""Returns the entropy of the labels of the top k examples for every k (Figures 7 and 12).

    .. math:: H_k = -\sum_c \frac{n_{c,k}}{k} \ln \frac{n_{c,k}}{k}

    In nats. The baseline of even labels is :math:`\ln C` (`uniform_entropy`). O(N) after the sort:
    a step changes one class's count.

    Args:
        scores: Finite scores, `[N]`, higher = first.
        labels: Classes, `[N]`.

    Returns:
        float64 `[N]`; the k-th, from 1, is at k - 1.
    """
    classes = np.unique(labels, return_inverse=True)[1][top_order(scores)]
    before = np.empty(len(classes), np.int64)  # How many of its class came before each.
    by_class = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[by_class], classes[by_class])
    before[by_class] = np.arange(len(classes)) - starts
    step = _n_log_n(before + 1) - _n_log_n(before)
    k = np.arange(1, len(classes) + 1)
    return np.maximum(np.log(k) - np.cumsum(step) / k, 0.0)


def uniform_entropy(num_classes: int) -> float:
    """Returns the entropy of even labels, in nats: the paper's baseline."""
    return float(np.log(num_classes))


def overlap(one: NDArray[np.floating], other: NDArray[np.floating]) -> Floats:
    r"""Returns :math:`|S_{1,k} \cap S_{2,k}| / k` for every k: how far two networks agree (Fig. 6).

    Args:
        one: Finite scores of the examples, `[N]`.
        other: Other scores of the same examples, in the same order.

    Returns:
        float64 `[N]` in [0, 1]; the k-th, from 1, is at k - 1.
    """
    _check_same_length(one, other)
    ranks = np.empty((2, len(one)), np.int64)
    for row, scores in zip(ranks, (one, other), strict=True):
        row[top_order(scores)] = np.arange(len(one))
    # An example is in both top-k sets from the k at which the later of its two ranks is in.
    enters = np.bincount(ranks.max(axis=0), minlength=len(one))
    return np.cumsum(enters) / np.arange(1, len(one) + 1)


def random_overlap(number: int) -> Floats:
    """Returns the expected overlap of two random orders for every k: k / N, float64 `[N]`."""
    return np.arange(1, number + 1) / number


def rank_correlation(columns: NDArray[np.floating]) -> Floats:
    """Returns Spearman's rank correlation between all columns; ties get their mean rank.

    Args:
        columns: A column of scores a network, seed or epoch, `[N, K]`, finite.

    Returns:
        float64 `[K, K]` in [-1, 1]; NaN where a column is constant, but 1 on the diagonal.
    """
    _check_finite(columns)
    ranks = np.stack([_mean_ranks(column) for column in np.asarray(columns).T])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (ranks @ ranks.T) / np.outer(norms, norms)
    found = np.clip(found, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def histogram(
    scores: NDArray[np.floating], num_bins: int = 50, *, log: bool = False
) -> tuple[NDArray[np.int64], Floats, int]:
    """Returns counts, edges, and how many scores a log axis cannot show.

    Args:
        scores: Finite scores, `[N]`.
        num_bins: Bins of equal width, on the axis that is shown.
        log: Cut a log axis into bins; scores of at most 0 are left out and counted.

    Returns:
        Counts int64 `[num_bins]`, edges float64 `[num_bins + 1]`, and the number left out.
    """
    _check_finite(scores)
    values = np.asarray(scores).astype(np.float64)
    shown = values[values > 0] if log else values
    if not shown.size:
        raise DataError("a histogram needs at least one score to show, got none. Try log=False.")
    if not log:
        counts, edges = np.histogram(shown, num_bins)
        return counts, edges, 0
    counts, edges = np.histogram(np.log10(shown), num_bins)
    return counts, 10**edges, len(values) - len(shown)


def _n_log_n(n: NDArray[np.int64]) -> Floats:
    return np.asarray(n * np.log(np.maximum(n, 1)), np.float64)


def _mean_ranks(values: NDArray[np.floating]) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2.0)[inverse]


def _check_finite(scores: NDArray[np.floating]) -> None:
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        raise DataError(f"scores must be finite, got {bad} that are not. Drop them first.")


def _check_same_length(one: NDArray[np.floating], other: NDArray[np.floating]) -> None:
    if len(one) != len(other):
        raise DataError(
            f"two columns must score the same examples, got {len(one)} and {len(other)}. "
            "Join them by key."
        )
