"""SemDeDup: what has a near copy among the chosen is left out first."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError
from raygrad.selection.methods import Plan, by_class
from raygrad.selection.order import Ordering, cut, from_order_bits
from raygrad.selection.quotas import Budget
from raygrad.selection.rows import Rows, View

log = logging.getLogger(__name__)
_COLUMN = "copy_similarity"
_CELLS = 2**23
_PER_CLUSTER = 256
"""Examples that a centre is found from, as in the authors' library for k-means."""
_DEFAULT_SIZE = 1_000
"""Examples a cluster by default."""


@dataclass(frozen=True)
class SemDeDup:
    r"""Leaves out near copies: those whose cosine to one that is kept exceeds a threshold.

    k-means by cosine cuts the features into `num_clusters` (0: one in a thousand examples; 50,000
    for the authors' 440 million). Within a cluster, from the farthest from its centre to the
    nearest, each example has the cosine to the most similar one before it,

    .. math:: m_i = \max_{j\ \text{before}\ i} \cos(h_i, h_j),

    at least 0 as in the authors' code, and is a copy where :math:`m_i > 1 - \epsilon`: of near
    copies the farthest from the centre stays. The authors choose :math:`\epsilon` so that so much
    is kept; here the share that is kept decides it, exactly, and it is said. With `class_balanced`
    the threshold is each class's own. Clusters that the authors cut because they are large are
    compared whole. A feature of all zeros is like nothing.
    """

    num_clusters: int = 0
    summary: ClassVar[str] = "near copies in features are left out, the likest first"
    paper: ClassVar[str] = "Abbas et al. 2023, section 3 (arXiv 2303.09540)"
    columns: ClassVar[tuple[str, ...]] = (_COLUMN,)

    def plan(self, rows: Rows, budget: Budget, seed: int) -> Plan:
        """Returns what to draw."""
        ordering = Ordering(by_class, len(rows.counts), seed, _least_alike_first)
        quotas = budget.over(rows.counts)
        ends = from_order_bits(cut(rows, ordering, quotas, rows.counts).first)[quotas > 0]
        if np.isfinite(ends).all():  # Infinite where all are kept.
            log.info("semdedup: what has a cosine above %.4f to one kept is out", ends.min())
        return Plan(ordering, rows.counts, quotas)

    def column(
        self, features: NDArray[Any], labels: NDArray[Any], order: NDArray[np.int64], seed: int
    ) -> NDArray[np.float64]:
        """Returns what is ordered by; see `copy_similarity`."""
        return copy_similarity(features, order, num_clusters=self.num_clusters, seed=seed)


def _least_alike_first(view: View) -> NDArray[np.floating]:
    return view.stored(_COLUMN)


def copy_similarity(
    features: NDArray[Any], order: NDArray[np.int64], *, num_clusters: int = 0, seed: int = 0
) -> NDArray[np.float64]:
    """Returns the cosine of each example to the likest one before it in its cluster.

    Args:
        features: `[N, D]`, in memory or mapped from a file; some rows at a time are read.
        order: Places that take part, in an order that keys alone decide; it settles ties.
        num_clusters: How many clusters; 0 for one in a thousand examples.
        seed: Seeds where the centres begin.

    Returns:
        float64 `[N]` in [0, 1]; NaN for what takes no part.

    Raises:
        ConfigError: There are more clusters than examples.
    """
    if not 0 <= num_clusters <= len(order):
        raise ConfigError(
            f"num_clusters must be in [0, {len(order)}], the images, got {num_clusters}. Lower it."
        )
    number = num_clusters or max(1, round(len(order) / _DEFAULT_SIZE))
    centres = spherical_centres(features, order, number, np.random.default_rng([seed % 2**64]))
    cluster, cosine = np.empty(len(order), np.int64), np.empty(len(order))
    step = max(1, _CELLS // max(number, features.shape[1]))
    for start in range(0, len(order), step):
        found = unit(features[order[start : start + step]]) @ centres.T
        cluster[start : start + step] = found.argmax(axis=1)
        cosine[start : start + step] = found.max(axis=1)
    result = np.full(len(features), np.nan)
    for one in range(number):
        members = np.flatnonzero(cluster == one)
        members = members[np.argsort(cosine[members], kind="stable")]  # The farthest first.
        result[order[members]] = _likest_before(unit(features[order[members]]))
    return result


def _likest_before(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the largest inner product of each row with a row before it, in [0, 1]."""
    found = np.zeros(len(points))
    step = max(1, _CELLS // max(1, len(points)))
    for start in range(0, len(points), step):
        rows = np.arange(start, min(start + step, len(points)))
        inner = points[rows] @ points[: rows[-1] + 1].T
        inner[np.arange(rows[-1] + 1) >= rows[:, None]] = 0.0
        found[rows] = inner.max(axis=1, initial=0.0)
    return np.minimum(found, 1.0)


def spherical_centres(
    features: NDArray[Any],
    order: NDArray[np.int64],
    number: int,
    rng: np.random.Generator,
    num_rounds: int = 50,
) -> NDArray[np.float32]:
    """Returns unit centres of k-means by cosine, float32 `[K, D]`.

    Lloyd's rounds from examples drawn at random, over at most 256 examples a centre; a centre that
    has lost all its examples begins anew at the one that is worst off.

    Args:
        features: `[N, D]`.
        order: Places that take part.
        number: How many centres K.
        rng: Draws the sample and where centres begin.
        num_rounds: Rounds at most; they end where no example changes its centre.
    """
    few = min(len(order), _PER_CLUSTER * number)
    sample = unit(features[rng.choice(order, few, replace=False)])
    centres = sample[rng.choice(len(sample), number, replace=False)]
    last = np.full(len(sample), -1)
    for _ in range(num_rounds):
        inner = sample @ centres.T
        nearest = inner.argmax(axis=1)
        if np.array_equal(nearest, last):
            break
        last = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        lost = np.flatnonzero(np.bincount(nearest, minlength=number) == 0)
        if lost.size:
            worst = np.argsort(inner.max(axis=1), kind="stable")[: lost.size]
            sums[lost] = sample[worst]
        centres = unit(sums)
    return centres


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Returns vectors of length 1, float32; zeros stay zeros."""
    wide = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return wide / lengths
