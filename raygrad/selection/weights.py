"""Weights that undo, in expectation, how an unequal draw tilts sums over the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError
from raygrad.selection.keyed_random import key_hashes, random_uniform

Floats = NDArray[np.float64]


def inclusion_weights(
    method: str,
    scores: NDArray[np.floating],
    positions: NDArray[np.int64],
    *,
    keys: Sequence[str] | None = None,
    seed: int = 0,
    labels: NDArray[Any] | None = None,
) -> Floats:
    r"""Returns a weight for each drawn example.

    For gradient_cdf the inverse of its chance to be drawn, given the arrivals of all others
    (Duffield, Lund and Thorup 2007, bottom-k sampling; Cohen and Kaplan 2007):

    .. math:: w_i = \frac{1}{1 - \exp(-g_i \tau)}

    with :math:`\tau` the next arrival of the race: the time of the first example (of the class,
    where the draw was within classes) that was not drawn. :math:`\sum_i w_i x_i` over the subset
    is then an unbiased estimate of the sum of :math:`x` over all examples of a score above 0:
    with :math:`x = 1` of their number, with the loss of its sum. Where a class is drawn whole each
    weight is 1. Where all scores above 0 are drawn, those of score 0 were drawn uniformly and
    weigh as such; where none of them is, they have no chance and are not in the sum.

    1 for every other method: a uniform draw has nothing to undo, and one by rank nothing to
    undo it with.

    Args:
        method: The method that drew.
        scores: The scores it drew from, all of them, `[N]`, finite.
        positions: What it drew.
        keys: The keys of all examples, which the race depends on; needed for gradient_cdf.
        seed: The draw's.
        labels: The classes of all examples, `[N]`, where the draw was within classes.

    Returns:
        float64, one a position, at least 1.

    Raises:
        ConfigError: gradient_cdf without keys.
    """
    if method != "gradient_cdf":
        return np.ones(len(positions))
    if keys is None or len(keys) != len(scores):
        found = "none" if keys is None else f"{len(keys)} for {len(scores)} scores"
        raise ConfigError(
            f"weights of gradient_cdf need the keys and the seed of the draw, got {found} keys. "
            "Give keys= and seed=, or draw_parts, which writes them."
        )
    classes = np.zeros(len(scores), np.int64)
    if labels is not None:
        classes = np.unique(labels, return_inverse=True)[1]
    uniforms = random_uniform(seed, key_hashes(keys))
    return _weights_of_race(scores, classes, positions, uniforms)


def _weights_of_race(
    scores: NDArray[np.floating],
    classes: NDArray[np.int64],
    positions: NDArray[np.int64],
    uniforms: Floats,
) -> Floats:
    """Returns the weights of the drawn, from everybody's score, class and random number, `[N]`."""
    rates = np.asarray(scores).astype(np.float64)
    with np.errstate(divide="ignore"):
        log_rates = np.log(rates)
    times = np.log(-np.log(uniforms)) - log_rates
    drawn = np.zeros(len(scores), bool)
    drawn[positions] = True
    nexts = np.full(classes.max(initial=0) + 1, np.inf)
    np.minimum.at(nexts, classes[~drawn], times[~drawn])
    size = len(nexts)
    race = Race(
        log_next=nexts,
        counts=np.bincount(classes, minlength=size),
        positive=np.bincount(classes[rates > 0], minlength=size),
        quotas=np.bincount(classes[drawn], minlength=size),
    )
    return race.weights(classes[positions], log_rates[positions])


class Race:
    """How far the race of each class went, which is all that weights need.

    Args:
        log_next: Log of the next arrival, infinite where every score above 0 was drawn, `[C]`.
        counts: Rows of each class, `[C]`.
        positive: Those of a score above 0, `[C]`.
        quotas: How many were drawn, `[C]`.
    """

    def __init__(
        self,
        log_next: Floats,
        counts: NDArray[np.int64],
        positive: NDArray[np.int64],
        quotas: NDArray[np.int64],
    ) -> None:
        self._log_next = log_next
        zeros_drawn = np.maximum(quotas - positive, 1)
        self._of_zeros = np.maximum((counts - positive) / zeros_drawn, 1.0)

    def weights(self, classes: NDArray[np.int64], log_rates: Floats) -> Floats:
        """Returns the weights of drawn rows.

        Args:
            classes: The class of each, `[n]`.
            log_rates: The log of the score of each, `[n]`.
        """
        positive = np.isfinite(log_rates)
        exponent = np.where(positive, log_rates, 0.0) + self._log_next[classes]
        with np.errstate(over="ignore"):
            chance = -np.expm1(-np.exp(exponent))
        return np.where(positive, 1 / np.where(positive, chance, 1.0), self._of_zeros[classes])
