"""k-center: examples such that none is far from all that are chosen."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raygrad.selection.comparing import BLOCK_SIZE, Arrays, Places, squared_lengths


@dataclass(frozen=True)
class KCenter:
    r"""The greedy k-center: always the example farthest from all that are chosen.

    .. math:: \arg\max_i \min_{j \in S} \|h_i - h_j\|

    with features :math:`h`; the largest distance that is left is at most twice the least possible
    (Gonzalez 1985). Algorithm 1 of the authors, who begin with examples that are labelled already;
    here the first is drawn at random. Their mixed-integer refinement is left out, as they do in
    most experiments. With `class_balanced` it works within each class.
    """

    block_size: int = BLOCK_SIZE
    summary: ClassVar[str] = "greedily the example farthest, in features, from all chosen"
    paper: ClassVar[str] = "Sener and Savarese 2018, algorithm 1 (arXiv 1708.00489)"
    columns: ClassVar[tuple[str, ...]] = ("features",)

    def choose(self, block: Arrays, number: int, rng: np.random.Generator) -> Places:
        """Returns the places chosen, in order; the first in the block's order is the first."""
        features = block["features"]
        # Inner products of what is far from the origin would lose the digits that tell apart.
        features = features - features.mean(axis=0)
        squares = squared_lengths(features)
        chosen = np.zeros(number, np.int64)
        nearest = np.full(len(features), np.inf)
        for step in range(number):
            pick = int(np.argmax(nearest)) if step else 0
            chosen[step] = pick
            inner = (features @ features[pick]).astype(np.float64)
            np.minimum(nearest, squares + squares[pick] - 2 * inner, out=nearest)
            nearest[pick] = -np.inf
        return chosen
