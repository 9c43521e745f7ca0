"""BADGE: last-layer gradients that are large and far apart, by the seeding of k-means++."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from raygrad.selection.comparing import BLOCK_SIZE, Arrays, Places, squared_lengths


@dataclass(frozen=True)
class Badge:
    r"""k-means++ over the gradients of the last layer's weights, never written out.

    The gradient is the outer product :math:`g_i = e_i \otimes h_i` of the error :math:`e_i` at the
    logits and the feature :math:`h_i`, so that

    .. math:: \|g_i - g_j\|^2 = \|e_i\|^2 \|h_i\|^2 + \|e_j\|^2 \|h_j\|^2
              - 2 (e_i \cdot e_j)(h_i \cdot h_j).

    The first is that of largest gradient; each next one is drawn with chance proportional to its
    squared distance to the nearest of the chosen, as in the authors' code. They choose what to
    label, so their error is that of the class that the network guesses; here labels are known, and
    the error is that of the label. `guessed` takes theirs (of a softmax: it is found from the error
    and the label's entry, the one below 0).
    """

    guessed: bool = False
    block_size: int = BLOCK_SIZE
    summary: ClassVar[str] = "k-means++ over last-layer gradients: large ones that are far apart"
    paper: ClassVar[str] = "Ash et al. 2020, algorithm 1 (arXiv 1906.03671)"
    columns: ClassVar[tuple[str, ...]] = ("errors", "features")

    def choose(self, block: Arrays, number: int, rng: np.random.Generator) -> Places:
        """Returns the places chosen, in order."""
        errors, features = block["errors"], block["features"]
        errors = guessed_errors(errors) if self.guessed else errors
        squares = squared_lengths(errors) * squared_lengths(features)
        chosen = np.zeros(number, np.int64)
        nearest = np.full(len(squares), np.inf)
        for step in range(number):
            pick = _drawn(nearest, chosen[:step], rng) if step else int(np.argmax(squares))
            chosen[step] = pick
            inner = (errors @ errors[pick]).astype(np.float64) * (features @ features[pick])
            np.minimum(nearest, squares + squares[pick] - 2 * inner, out=nearest)
            np.maximum(nearest, 0.0, out=nearest)
            nearest[pick] = 0.0
        return chosen


def guessed_errors(errors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the errors that there would be if each guess were the label.

    Args:
        errors: Softmax minus one-hot label, `[N, C]`: the label's entry is the least one.
    """
    every, label = np.arange(len(errors)), errors.argmin(axis=1)
    probabilities = errors.copy()
    probabilities[every, label] += 1.0
    probabilities[every, probabilities.argmax(axis=1)] -= 1.0
    return probabilities


def _drawn(nearest: NDArray[np.float64], chosen: Places, rng: np.random.Generator) -> int:
    """Returns a place drawn in proportion to the distance, of what is not chosen."""
    uniform = rng.random()  # Always one, so that how many are drawn changes none of them.
    sums = np.cumsum(nearest)
    if sums[-1] > 0:
        return int(np.searchsorted(sums, uniform * sums[-1], side="right").clip(0, len(sums) - 1))
    left = np.setdiff1d(np.arange(len(nearest)), chosen)  # All that is left repeats the chosen.
    return int(left[int(uniform * len(left))])
