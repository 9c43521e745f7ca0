"""Weights that undo, in expectation, how an unequal draw tilts the loss."""

import numpy as np
from numpy.typing import NDArray


def inclusion_weights(
    method: str,
    scores: NDArray[np.floating],
    positions: NDArray[np.int64],
    *,
    labels: NDArray[np.generic] | None = None,
) -> NDArray[np.float64]:
    r"""Returns a weight for each drawn example.

    For gradient_cdf :math:`1 / (N p_i)` with :math:`p_i = g_i / \sum_j g_j`: the importance weight
    of one draw with replacement, which is what it is; not the inverse of the exact inclusion
    probability of a draw without replacement. 1 for every other method.

    Args:
        method: The method that drew.
        scores: The scores it drew from, all of them, `[N]`, finite.
        positions: What it drew.
        labels: The classes of all examples, where the draw was within classes: N and the sum are
            then those of the example's class.
    """
    if method != "gradient_cdf":
        return np.ones(len(positions))
    inverse = np.zeros(len(scores), np.int64)
    if labels is not None:
        inverse = np.unique(labels, return_inverse=True)[1]
    rates = np.asarray(scores).astype(np.float64)
    mean = (np.bincount(inverse, rates) / np.bincount(inverse))[inverse[positions]]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean > 0, mean / rates[positions], 1.0)
