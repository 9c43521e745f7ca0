"""Drawing a subset from scores in memory."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError
from raygrad.selection.batch_aware import BatchAware, draw_batch_aware
from raygrad.selection.comparing import (
    Comparing,
    check_shapes,
    draw_comparing,
    finite_rows,
    from_zero,
)
from raygrad.selection.keyed_random import key_hashes, random_bits
from raygrad.selection.methods import SCORE, Method, Plan
from raygrad.selection.named import COMPARING, FromFeatures, check_method
from raygrad.selection.order import Cut, cut
from raygrad.selection.quotas import Budget, ClassBalanced
from raygrad.selection.rows import ArrayBatch, Missing, Rows, View

Positions = NDArray[np.int64]
_LABEL = "label"


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
        method: A key of `METHODS` or `COMPARING`.
        scores: One score an example, `[N]`, higher = harder; or an array of each name that the
            method's `columns` lists, of which `features` are `[N, D]` and `errors` `[N, C]`;
            moderate and semdedup find their column themselves where `features` are given.
        keys: The examples' keys, N of them, unique.
        budget: How many to draw, in [1, N].
        seed: Changes random draws and how ties are broken.
        labels: The examples' classes, `[N]`; needed for `class_balanced`, moderate and batch_aware.
        class_balanced: Draw by the method within each class: True or "even" for equal quotas
            (what small classes lack is shared by the others), "proportional" for quotas by
            largest remainder.
        missing: What becomes of NaN and infinite scores: an error that names the keys, never
            drawn (drop), or counted as the hardest or easiest (not of what is compared).
        **options: The method's fields, such as `drop_fraction`.

    Returns:
        Positions, int64 `[budget]`.

    Raises:
        ConfigError: The method, an option or the budget is impossible, or labels are missing.
        DataError: A score is missing, or negative where it must not be; a key is there twice.
    """
    chosen: Any = check_method(method, **options)
    if method in COMPARING:
        given = method, chosen, _arrays(method, chosen, scores), keys, budget, seed
        return draw_by_comparing(*given, _labels_of(labels), class_balanced, missing)
    if isinstance(chosen, FromFeatures) and isinstance(scores, Mapping) and "features" in scores:
        scores = _column_of(chosen, np.asarray(scores["features"]), keys, labels, seed)
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


def _labels_of(labels: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if labels is None else np.asarray(labels)


def draw_by_comparing(
    method: str,
    chosen: Comparing | BatchAware,
    arrays: Mapping[str, NDArray[Any]],
    keys: Sequence[str],
    budget: int | Callable[[int], int],
    seed: int,
    labels: NDArray[Any] | None,
    class_balanced: ClassBalanced,
    missing: Missing,
) -> Positions:
    """Returns the positions drawn by a method that compares examples, as `draw` does.

    Args:
        method: Its name.
        chosen: The method.
        arrays: What it reads, in memory or mapped from files.
        keys: As in `draw`, and so the others.
        budget: How many to draw, or a function of how many rows take part.
        seed: Changes the draw.
        labels: Classes.
        class_balanced: Whether classes are drawn from one by one.
        missing: What becomes of rows that are not finite.

    Raises:
        ConfigError: As of `draw`.
        DataError: As of `draw`.
    """
    if isinstance(chosen, BatchAware) and class_balanced:
        raise ConfigError(
            f"{method} evens classes by itself, got class_balanced={class_balanced!r}. "
            "Leave it out, or raise balance."
        )
    if labels is None and (class_balanced or isinstance(chosen, BatchAware)):
        raise ConfigError(f"{method} needs a label for each key, got none.")
    check_shapes(arrays, chosen.columns, len(keys))
    hashes = key_hashes(keys)
    _refuse_repeats(keys, hashes)
    among = _taking_part(method, arrays, chosen.columns, keys, missing)
    total = budget(len(among)) if callable(budget) else budget
    if isinstance(chosen, BatchAware):
        # Mapped files are read a block at a time, unless rows are left out of them.
        part = slice(None) if len(among) == len(keys) else among
        drawn = draw_batch_aware(
            arrays["errors"][part], arrays["features"][part], np.asarray(labels)[part],
            [keys[at] for at in among.tolist()], total, seed=seed, **dataclasses.asdict(chosen),
        )  # fmt: skip
        return among[drawn]
    if SCORE in chosen.columns:
        filled = np.zeros(len(keys))
        filled[among] = from_zero(arrays[SCORE][among])
        arrays = {**arrays, SCORE: filled}
    return draw_comparing(
        chosen, arrays, hashes, total, seed=seed, labels=labels, class_balanced=class_balanced,
        among=among,
    )  # fmt: skip


def _taking_part(
    method: str,
    arrays: Mapping[str, NDArray[Any]],
    columns: tuple[str, ...],
    keys: Sequence[str],
    missing: Missing,
) -> Positions:
    """Returns the positions of finite rows; what becomes of others is as `missing` says."""
    if missing not in ("error", "drop"):
        raise ConfigError(
            f"missing must be error or drop for {method}, got {missing!r}: what is compared has no "
            "hardest or easiest value. Give one of the two."
        )
    finite = finite_rows(arrays, columns)
    if missing == "error" and not finite.all():
        named = ", ".join(str(keys[at]) for at in np.flatnonzero(~finite)[:5].tolist())
        raise DataError(
            f"{' and '.join(columns)} must be finite, got {(~finite).sum()} rows that are not: "
            f"{named}. Score again, or leave them out: missing drop."
        )
    return np.flatnonzero(finite)


def _refuse_repeats(keys: Sequence[str], hashes: NDArray[np.uint64]) -> None:
    order = np.argsort(hashes, kind="stable")
    for at in np.flatnonzero(np.diff(hashes[order]) == 0).tolist():
        one, other = (str(keys[place]) for place in order[at : at + 2].tolist())
        if one == other:
            raise DataError(f"keys must be unique, got {one!r} twice. Rename one of them.")


def _arrays(method: str, chosen: Any, scores: Any) -> dict[str, NDArray[Any]]:
    found = [name for name in chosen.columns if isinstance(scores, Mapping) and name in scores]
    if len(found) < len(chosen.columns):
        raise ConfigError(
            f"{method} needs the arrays {', '.join(chosen.columns)}, got "
            f"{', '.join(found) or 'neither'}. Give a dict of them."
        )
    return {name: np.asarray(scores[name]) for name in chosen.columns}


def _column_of(
    chosen: FromFeatures,
    features: NDArray[Any],
    keys: Sequence[str],
    labels: NDArray[Any] | None,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Returns the column that features make, NaN where they are not finite."""
    check_shapes({"features": features}, ("features",), len(keys))
    of = _labels(labels, len(keys), "a centre for each class")
    order = keyed_order(key_hashes(keys), seed, finite_rows({"f": features}, ("f",)))
    return {chosen.columns[0]: chosen.column(features, of, order, seed)}


def keyed_order(hashes: NDArray[np.uint64], seed: int, taking_part: NDArray[np.bool_]) -> Positions:
    """Returns the positions that take part, in an order that seed and keys alone decide."""
    among = np.flatnonzero(taking_part)
    return among[np.argsort(random_bits(seed, hashes[among]), kind="stable")]


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


def _labels(
    labels: NDArray[Any] | None, num_rows: int, what: str = "class_balanced"
) -> NDArray[Any]:
    if labels is None or len(labels) != num_rows:
        found = "none" if labels is None else f"{len(labels)} for {num_rows} keys"
        raise ConfigError(f"{what} needs a label for each key, got {found}.")
    return np.asarray(labels)
