"""Drawing a subset from scores in memory."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError, unknown_name
from raygrad.selection.batch_aware import BatchAware, draw_batch_aware
from raygrad.selection.coverage import Ccs, DualBeta, Moderate
from raygrad.selection.methods import (
    SCORE,
    Band,
    Easiest,
    GradientCdf,
    MaxGradient,
    Method,
    NonExtremeMaxGradient,
    Plan,
    Random,
)
from raygrad.selection.order import Cut, cut
from raygrad.selection.quotas import Budget, ClassBalanced
from raygrad.selection.rows import ArrayBatch, Missing, Rows, View

Positions = NDArray[np.int64]
_LABEL = "label"

METHODS: dict[str, type[Method]] = {
    "random": Random,
    "max_gradient": MaxGradient,
    "non_extreme_max_gradient": NonExtremeMaxGradient,
    "gradient_cdf": GradientCdf,
    "easiest": Easiest,
    "band": Band,
    "ccs": Ccs,
    "dual_beta": DualBeta,
    "moderate": Moderate,
}
"""Methods that draw from rows, by name: each a `summary`, a `paper`, and its options as fields."""
IN_MEMORY: dict[str, type[BatchAware]] = {"batch_aware": BatchAware}
"""Methods that compare examples with one another: for `draw` alone."""


def check_method(method: str, **options: float) -> Method:
    """Returns a method with its options.

    Raises:
        ConfigError: The name is not of a known method, or an option not one of its own.
    """
    if method in IN_MEMORY:
        raise ConfigError(
            f"a method that draws from a score table must be one of {', '.join(METHODS)}, got "
            f"{method}, which reads errors and features. Call raygrad.selection.draw with them."
        )
    if method not in METHODS:
        raise ConfigError(unknown_name("method", method, METHODS))
    return _with_options(method, METHODS[method], options)


def _with_options(method: str, kind: Any, options: Mapping[str, Any]) -> Any:
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            raise ConfigError(
                unknown_name(f"option of {method}", name, known)
                if known
                else f"{method} takes no options, got {name!r}. Leave it out."
            )
    return kind(**options)


def draw(
    method: str,
    scores: NDArray[np.floating] | Mapping[str, NDArray[np.floating]],
    keys: Sequence[str],
    budget: int,
    *,
    seed: int = 0,
    labels: NDArray[Any] | None = None,
    class_balanced: ClassBalanced = False,
    missing: Missing = "error",
    **options: Any,
) -> Positions:
    """Returns the positions of the examples drawn, in draw order.

    The draw depends on (scores, method, budget, seed) only: not on the order of the examples. For
    one seed, subsets of growing budget nest (not of dual_beta; with proportional quotas up to
    one a class). Ties are broken by a seeded hash of the key.

    Args:
        method: A key of `METHODS` or `IN_MEMORY`.
        scores: One score an example, `[N]`, higher = harder; or a column of each name that the
            method's `columns` lists; for batch_aware `errors` `[N, C]` and `features` `[N, D]`.
        keys: The examples' keys, N of them, unique.
        budget: How many to draw, in [1, N].
        seed: Changes random draws and how ties are broken.
        labels: The examples' classes, `[N]`; needed for `class_balanced`.
        class_balanced: Draw by the method within each class: True or "even" for equal quotas
            (what small classes lack is shared by the others), "proportional" for quotas by
            largest remainder.
        missing: What becomes of NaN and infinite scores: an error that names the keys, never
            drawn (drop), or counted as the hardest or easiest score there is.
        **options: The method's fields, such as `drop_fraction`.

    Returns:
        Positions, int64 `[budget]`.

    Raises:
        ConfigError: The method, an option or the budget is impossible, or labels are missing.
        DataError: A score is missing, or negative where it must not be; a key is there twice.
    """
    if method in IN_MEMORY:
        return _draw_in_memory(method, scores, keys, budget, seed, labels, class_balanced, options)
    chosen = check_method(method, **options)
    columns = _columns(method, chosen, scores, len(keys))
    if class_balanced:
        columns[_LABEL] = _labels(labels, len(keys))
    rows = Rows(
        [ArrayBatch(columns, keys)],
        chosen.columns,
        missing=missing,
        by_class=_LABEL if class_balanced else None,
    )
    plan = chosen.plan(rows, Budget(budget, class_balanced), seed)
    chosen_rows = cut(rows, plan.ordering, plan.quotas, plan.counts)
    (selection,) = rows.map(lambda view: Selection(chosen_rows, view))
    return selection.settled(plan)


def _draw_in_memory(
    method: str,
    scores: Any,
    keys: Sequence[str],
    budget: int,
    seed: int,
    labels: NDArray[Any] | None,
    class_balanced: ClassBalanced,
    options: Mapping[str, Any],
) -> Positions:
    chosen = _with_options(method, IN_MEMORY[method], options)
    if class_balanced:
        raise ConfigError(
            f"{method} evens classes by itself, got class_balanced={class_balanced!r}. "
            "Leave it out, or raise balance."
        )
    found = [name for name in chosen.columns if isinstance(scores, Mapping) and name in scores]
    if len(found) < len(chosen.columns):
        raise ConfigError(
            f"{method} needs the arrays {', '.join(chosen.columns)}, got "
            f"{', '.join(found) or 'neither'}. Give a dict of both."
        )
    if labels is None:
        raise ConfigError(f"{method} needs a label for each key, got none.")
    return draw_batch_aware(
        scores["errors"], scores["features"], np.asarray(labels), keys, budget, seed=seed,
        **dataclasses.asdict(chosen),
    )  # fmt: skip


class Selection:
    """The rows of a view that a cut lets through, with what orders them."""

    def __init__(self, chosen: Cut, view: View) -> None:
        ordering = chosen.ordering
        self.view = view
        self.at = chosen.admitted(view)
        self.groups = ordering.groups(view)[self.at]
        self.first = ordering.first_bits(view)[self.at]
        self.ties = ordering.tie_bits(view, self.at)

    def settled(self, plan: Plan) -> Positions:
        """Returns the places in draw order, with equal hashes of keys told apart by the keys."""
        keys = self.view.batch.keys
        order = draw_order(self.first, lambda at: self.ties[at], lambda at: keys(self.at[at]))
        return self.at[order[within_quotas(self.groups[order], plan.quotas)]]


def draw_order(
    first: NDArray[np.uint64],
    ties: Callable[[Positions], NDArray[np.uint64]],
    keys: Callable[[Positions], Sequence[str]],
) -> Positions:
    """Returns the order of rows by their composites; rows of equal composite by their keys.

    Two keys of one 64-bit hash are to be expected once in some billions of rows.

    Args:
        first: The first bits of each row.
        ties: Gives the last bits at some places; asked for rows of equal first bits alone.
        keys: Gives the keys at some places.

    Raises:
        DataError: A key is there twice.
    """
    order = np.argsort(first)
    at = np.flatnonzero(_beside_equal(first[order]))
    rows = order[at]
    last = ties(rows)
    among = np.lexsort((last, first[rows]))
    rows, last = rows[among], last[among]
    equal = (np.diff(first[rows]) == 0) & (np.diff(last) == 0)
    edges = np.flatnonzero(np.diff(np.r_[False, equal, False]))
    for start, end in edges.reshape(-1, 2).tolist():
        run = rows[start : end + 1]
        named = sorted(zip(keys(run), run.tolist(), strict=True))
        for (one, _), (other, _) in itertools.pairwise(named):
            if one == other:
                raise DataError(f"keys must be unique, got {one!r} twice. Rename one of them.")
        rows[start : end + 1] = [place for _, place in named]
    order[at] = rows
    return order


def _beside_equal(ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Returns which rows have a neighbour of the same bits."""
    same = np.diff(ordered) == 0
    return np.r_[False, same] | np.r_[same, False] if ordered.size else np.empty(0, bool)


def within_quotas(groups: NDArray[np.int64], quotas: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which rows, in draw order, are within their group's quota."""
    counts = np.bincount(groups, minlength=len(quotas))
    keep = np.ones(len(groups), bool)
    for group in np.flatnonzero(counts > quotas).tolist():  # Only where two hashes are equal.
        keep[np.flatnonzero(groups == group)[quotas[group] :]] = False
    return keep


def _columns(method: str, chosen: Method, scores: Any, num_rows: int) -> dict[str, NDArray[Any]]:
    if isinstance(scores, Mapping):
        absent = sorted(set(chosen.columns) - set(scores))
        if absent == [SCORE] and len(scores) == 1:
            scores = {SCORE: next(iter(scores.values()))}
        elif absent:
            raise ConfigError(
                f"{method} needs the columns {', '.join(chosen.columns)}, got "
                f"{', '.join(scores) or 'none'}. Score with --columns."
            )
        columns = {name: np.asarray(scores[name]) for name in chosen.columns}
    elif len(chosen.columns) > 1:
        raise ConfigError(
            f"{method} needs the columns {', '.join(chosen.columns)}, got one array. "
            "Give a dict of columns."
        )
    else:
        columns = {name: np.asarray(scores) for name in chosen.columns}
        columns.setdefault(SCORE, np.asarray(scores))
    for name, values in columns.items():
        if len(values) != num_rows:
            raise ConfigError(
                f"scores and keys must be of one length, got {len(values)} of {name} and "
                f"{num_rows} keys. Take both from one table."
            )
    return columns


def _labels(labels: NDArray[Any] | None, num_rows: int) -> NDArray[Any]:
    if labels is None or len(labels) != num_rows:
        found = "none" if labels is None else f"{len(labels)} for {num_rows} keys"
        raise ConfigError(f"class_balanced needs a label for each key, got {found}.")
    return np.asarray(labels)
