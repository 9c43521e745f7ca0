"""Which examples go first, for each goal, and why."""

import numpy as np
from numpy.typing import NDArray

REPEAT, LABEL, PICTURE = "repeats", "likely labelled wrongly", "no picture to learn from"
"""Why an example goes whatever the goal."""


def flawed(
    repeats: NDArray[np.bool_],
    suspects: NDArray[np.bool_],
    odd: NDArray[np.bool_],
) -> list[str]:
    """Returns why each example should go, ``""`` where nothing is wrong with it.

    Args:
        repeats: Examples that another of their group stands for, ``[N]``.
        suspects: Examples that are likely labelled wrongly, ``[N]``.
        odd: Pictures that show nothing, ``[N]``.
    """
    reasons = np.full(len(repeats), "", dtype=object)
    for reason, of in ((PICTURE, odd), (LABEL, suspects), (REPEAT, repeats)):
        reasons[of] = reason
    return reasons.tolist()


def redundant(groups: NDArray[np.int64], preference: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Returns which members of groups another stands for: all but the one of least preference.

    Args:
        groups: Of `groups_of`, ``[N]``; -1 for none.
        preference: The lower, the rather it stays; ties go by position, ``[N]``.
    """
    found = groups >= 0
    order = np.lexsort((np.arange(len(groups)), preference))
    order = order[groups[order] >= 0]
    _, first = np.unique(groups[order], return_index=True)
    found[order[first]] = False
    return found


def kept(reasons: list[str], order: NDArray[np.floating], budget: int | None) -> NDArray[np.bool_]:
    """Returns which examples stay: without flaw first, then by an order.

    Args:
        reasons: Of `flawed`, N of them.
        order: The lower, the rather an example stays, ``[N]``: among those without flaw, and
            among those with one.
        budget: How many stay; by default all without flaw.
    """
    wrong = np.array([bool(reason) for reason in reasons])
    if budget is None:
        return ~wrong
    best = np.lexsort((order, wrong))
    found = np.zeros(len(wrong), bool)
    found[best[:budget]] = True
    return found


def spread_order(
    features: NDArray[np.floating], groups: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> NDArray[np.float64]:
    """Returns the place of each example in a k-center greedy order within its group.

    The first is the one nearest the group's centre; each next one is farthest from those before it
    (Sener and Savarese 2018, arXiv 1708.00489, algorithm 1), so that any beginning of the order
    covers the group within twice the best radius. Places are shares of the group, so that groups
    are evened.

    Args:
        features: ``[N, D]``.
        groups: What is spread within: classes, say, ``[N]``.
        hashes: Seeded bits of the keys: equal distances go by them, ``[N]``.

    Returns:
        float64 ``[N]``, in (0, 1].
    """
    place = np.empty(len(groups), np.float64)
    for group in np.unique(groups):
        at = np.flatnonzero(groups == group)
        at = at[np.argsort(hashes[at])]
        place[at[_farthest_first(features[at].astype(np.float64))]] = np.arange(
            1, len(at) + 1
        ) / len(at)
    return place


def _farthest_first(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns positions: the most central, then always the farthest from those before it."""
    squares = (points**2).sum(axis=1)
    first = int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin())
    order = np.empty(len(points), np.int64)
    distances = np.full(len(points), np.inf)
    taken = first
    for step in range(len(points)):
        order[step] = taken
        found = squares - 2 * points @ points[taken] + squares[taken]
        distances = np.minimum(distances, np.maximum(found, 0.0))
        distances[taken] = -1.0
        taken = int(distances.argmax())
    return order
