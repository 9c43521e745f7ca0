"""D2 pruning: hard examples that are spread out, by messages over a graph of neighbours."""

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError
from raygrad.selection.comparing import BLOCK_SIZE, Arrays, Places, squared_distances

log = logging.getLogger(__name__)
_CELLS = 2**23
"""Distances that are held at once."""


@dataclass(frozen=True)
class D2:
    r"""D2 pruning: scores are spread over the nearest neighbours, then the best is taken.

    In the graph of the `num_neighbours` nearest in features, with weights
    :math:`e_{ij}(\gamma) = \exp(-\gamma\, d_{ij}^2)`, scores first go forward,

    .. math:: x_i \leftarrow x_i + \sum_{j \in N(i)} e_{ij}(\gamma_f)\, x_j,

    and then, one at a time, the example k of highest :math:`x_k` is taken, and its neighbours fall:
    :math:`x_j \leftarrow x_j - e_{kj}(\gamma_r)\, x_k` for :math:`j \in N(k)`. The graph is
    directed, as in the authors' code for large sets.

    Two differences. With `scaled` the squared distances are divided by their mean over the graph,
    so that a gamma means the same for every network; the authors take distances as they are and
    tune both gammas, and the number of neighbours, for each data set and budget. And scores below 0
    are counted from the lowest, since a message of less than nothing would make neighbours of easy
    examples hard.
    """

    num_neighbours: int = 10
    gamma_f: float = 1.0
    gamma_r: float = 1.0
    scaled: bool = True
    block_size: int = BLOCK_SIZE
    summary: ClassVar[str] = "high scores that are spread out, by messages between neighbours"
    paper: ClassVar[str] = "Maharana et al. 2023, section 3 (arXiv 2310.07931)"
    columns: ClassVar[tuple[str, ...]] = ("features", "score")

    def __post_init__(self) -> None:
        if self.num_neighbours < 1 or self.gamma_f < 0 or self.gamma_r < 0:
            raise ConfigError(
                "num_neighbours must be at least 1 and gamma_f and gamma_r at least 0, got "
                f"{self.num_neighbours}, {self.gamma_f} and {self.gamma_r}."
            )

    def choose(self, block: Arrays, number: int, rng: np.random.Generator) -> Places:
        """Returns the places chosen, in order."""
        near, squares = nearest_neighbours(block["features"], self.num_neighbours)
        mean = float(squares.mean()) if squares.size else 0.0
        if self.scaled and mean > 0:
            squares = squares / mean
        forward, back = np.exp(-self.gamma_f * squares), np.exp(-self.gamma_r * squares)
        if squares.size and max(forward.max(), back.max()) < 1e-6:
            log.warning(
                "d2: neighbours are so far apart (mean squared distance %.3g) that no message "
                "arrives, so it is max_gradient; lower gamma_f and gamma_r",
                mean,
            )
        score = block["score"]
        level = score + (forward * score[near]).sum(axis=1)
        chosen = np.empty(number, np.int64)
        for step in range(number):
            pick = int(np.argmax(level))
            chosen[step] = pick
            level[near[pick]] -= back[pick] * level[pick]
            level[pick] = -np.inf  # A message to what is taken changes nothing of it.
        return chosen


def nearest_neighbours(
    features: NDArray[np.float32], number: int
) -> tuple[Places, NDArray[np.float64]]:
    """Returns the nearest other examples of each, by all distances, some rows at a time.

    Args:
        features: `[N, D]`.
        number: How many neighbours; fewer where N is smaller.

    Returns:
        Places `[N, k]`, nearest first, of equal ones the first; and squared distances `[N, k]`.
    """
    count = len(features)
    k = min(number, count - 1)
    places, squares = np.empty((count, k), np.int64), np.empty((count, k))
    features = features - features.mean(axis=0)
    step = max(1, _CELLS // count)
    for start in range(0, count if k else 0, step):
        rows = np.arange(start, min(start + step, count))
        found = squared_distances(features[rows], features)
        found[np.arange(len(rows)), rows] = np.inf
        at = np.argpartition(found, k - 1, axis=1)[:, :k] if k < count - 1 else None
        at = np.argsort(found, axis=1, kind="stable")[:, :k] if at is None else at
        of = np.take_along_axis(found, at, axis=1)
        order = np.lexsort((at, of), axis=1)
        places[rows] = np.take_along_axis(at, order, axis=1)
        squares[rows] = np.take_along_axis(of, order, axis=1)
    return places, squares
