"""The paper's four ways to draw a subset, each a function of (scores, keys, budget, seed) alone."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError, unknown_name
from raygrad.selection.keyed_random import key_hashes, random_bits, random_uniform

Scores = NDArray[np.floating]
Positions = NDArray[np.int64]


def random(scores: Scores, hashes: NDArray[np.uint64], budget: int, seed: int) -> Positions:
    """Uniform without replacement: the paper's baseline."""
    return _smallest(random_bits(seed, hashes), hashes, budget, seed)


def max_gradient(scores: Scores, hashes: NDArray[np.uint64], budget: int, seed: int) -> Positions:
    """The examples of largest score, hardest first (equation 7)."""
    return _smallest(-scores, hashes, budget, seed)


def non_extreme_max_gradient(
    scores: Scores,
    hashes: NDArray[np.uint64],
    budget: int,
    seed: int,
    *,
    drop_fraction: float = 0.05,
) -> Positions:
    """max_gradient after leaving out the `drop_fraction` of examples of largest score."""
    dropped = round(drop_fraction * len(scores))
    if budget > len(scores) - dropped:
        raise ConfigError(
            f"budget must be at most {len(scores) - dropped} once {dropped} extremes are left "
            f"out, got {budget}. Lower keep_fraction or drop_fraction."
        )
    return _smallest(-scores, hashes, dropped + budget, seed)[dropped:]


def gradient_cdf(scores: Scores, hashes: NDArray[np.uint64], budget: int, seed: int) -> Positions:
    r"""Successive sampling without replacement with probabilities proportional to the score.

    .. math:: P(x_i) = g_i / \sum_j g_j

    (equation 8), exactly, as an exponential race: each example's time is exponential with rate
    :math:`g_i`, and the first `budget` to arrive are drawn (Efraimidis and Spirakis, 2006).
    Examples of score 0 come last, in random order.
    """
    if np.any(scores < 0):
        raise DataError(f"gradient_cdf needs scores of at least 0, got {float(scores.min())}.")
    with np.errstate(divide="ignore"):
        times = -np.log(random_uniform(seed, hashes)) / scores.astype(np.float64)
    order = np.lexsort((random_bits(seed, hashes), times))
    return order[:budget].astype(np.int64)


METHODS: dict[str, Callable[..., Positions]] = {
    "random": random,
    "max_gradient": max_gradient,
    "non_extreme_max_gradient": non_extreme_max_gradient,
    "gradient_cdf": gradient_cdf,
}
"""Methods of selection by name."""


def check_method(method: str) -> None:
    """Raises ConfigError unless the name is of a known method."""
    if method not in METHODS:
        raise ConfigError(unknown_name("method", method, METHODS))


def draw(
    method: str,
    scores: Scores,
    keys: Sequence[str],
    budget: int,
    *,
    seed: int = 0,
    **options: float,
) -> Positions:
    """Returns the positions of the examples drawn, in draw order.

    The draw depends on (scores, method, budget, seed) only: not on the order of the examples. For
    one seed, subsets of growing budget nest. Ties are broken by a seeded hash of the key.

    Args:
        method: A key of `METHODS`.
        scores: One score an example, `[N]`, higher = harder; all finite.
        keys: The examples' keys, N of them, unique.
        budget: How many to draw, in [1, N].
        seed: Changes random draws and how ties are broken.
        **options: `drop_fraction` of non_extreme_max_gradient.

    Returns:
        Positions, int64 `[budget]`.

    Raises:
        ConfigError: The method is unknown or the budget is impossible.
        DataError: A score is not finite, or negative where it must not be.
    """
    check_method(method)
    if not 1 <= budget <= len(scores):
        raise ConfigError(f"budget must be in [1, {len(scores)}], got {budget}.")
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        named = ", ".join(str(keys[at]) for at in bad[:5])
        raise DataError(f"scores must be finite, got {bad.size} that are not: {named}.")
    return METHODS[method](np.asarray(scores), key_hashes(keys), budget, seed, **options)


def inclusion_weights(method: str, scores: Scores, positions: Positions) -> NDArray[np.float64]:
    r"""Returns a weight for each drawn example.

    For gradient_cdf :math:`1 / (N p_i)` with :math:`p_i = g_i / \sum_j g_j`: the importance weight
    of one draw with replacement, which is what it is; not the inverse of the exact inclusion
    probability of a draw without replacement. 1 for every other method.
    """
    if method != "gradient_cdf" or not np.any(scores > 0):
        return np.ones(len(positions))
    share = scores.astype(np.float64) / scores.sum(dtype=np.float64)
    with np.errstate(divide="ignore"):
        return 1.0 / (len(scores) * share[positions])


def _smallest(
    values: NDArray[np.generic], hashes: NDArray[np.uint64], budget: int, seed: int
) -> Positions:
    """Returns the positions of the smallest values, ascending; ties by seeded hash of the key."""
    order = np.lexsort((random_bits(seed, hashes), values))
    return order[:budget].astype(np.int64)
