"""Which examples the report shows: the extremes whole, and the rest evenly over the scores."""

import numpy as np

_HARDEST = 0.4
_EASIEST = 0.1
_PER_CLASS = 0.2


def hardest_first(values: np.ndarray) -> np.ndarray:
    """Positions by falling score, those without one last; equal scores keep the table's order.

    Args:
        values: One score an example, float ``[N]``.
    """
    return np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")


def hardness_order(values: np.ndarray) -> np.ndarray:
    """The scores' order as finite scores: N for the hardest down to 1, float64 ``[N]``.

    It keeps what :func:`hardest_first` says of infinite and missing scores, for functions that take
    finite ones only.
    """
    out = np.empty(len(values))
    out[hardest_first(values)] = np.arange(len(values), 0, -1)
    return out


def choose_examples(values: np.ndarray, labels: np.ndarray, limit: int) -> np.ndarray:
    """Positions of at most ``limit`` examples to show, hardest first.

    All of a small data set. Of a larger one: the hardest (40%), the hardest of each class (20%),
    the easiest (10%), and the rest at even ranks between, so that every band of scores has some.

    Args:
        values: One score an example, float ``[N]``.
        labels: Class of each example, ``[N]``.
        limit: The most to choose, at least 10.
    """
    order = hardest_first(values)
    if len(order) <= limit:
        return order
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[: int(limit * _HARDEST)]] = True
    chosen[order[len(order) - int(limit * _EASIEST) :]] = True
    classes = np.unique(labels)
    each = max(1, int(limit * _PER_CLASS) // len(classes))
    # By class, then by rank: the first `each` of every class are its hardest.
    grouped = np.lexsort((rank, labels))
    starts = np.searchsorted(labels[grouped], classes)
    ends = np.append(starts[1:], len(grouped))
    picks = [grouped[s : min(s + each, e)] for s, e in zip(starts, ends, strict=True)]
    ranked = np.concatenate(picks)
    budget = int(limit * _PER_CLASS)
    chosen[ranked[np.argsort(rank[ranked])][:budget]] = True
    room = limit - int(chosen.sum())
    rest = order[~chosen[order]]
    if room > 0:
        chosen[rest[np.linspace(0, len(rest) - 1, room).round().astype(np.int64)]] = True
    return order[chosen[order]]
