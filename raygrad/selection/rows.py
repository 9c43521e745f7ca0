"""Rows to select from: in memory or in Parquet parts, seen in batches that read what is asked."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import key_hashes

Missing = Literal["error", "drop", "hardest", "easiest"]
MISSING: tuple[Missing, ...] = ("error", "drop", "hardest", "easiest")
"""What becomes of an example with a NaN or infinite score."""
EASIER_IS_HIGHER = frozenset({"mean_probability"})
"""Columns that are no score: of all others the higher is the harder."""

T = TypeVar("T")
Places = NDArray[np.int64]


class Batch(Protocol):
    """Some rows; a column is read when it is asked for."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> NDArray[Any]:
        """Returns a column of numbers, or of labels."""

    def keys(self, at: Places) -> Sequence[str]:
        """Returns the keys at these places."""

    def hashes(self, at: Places) -> NDArray[np.uint64]:
        """Returns the hashes of the keys at these places."""


class ArrayBatch:
    """All rows, in memory."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], keys: Sequence[str]) -> None:
        self._columns, self._keys = columns, keys
        self._hashes: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def column(self, name: str) -> NDArray[Any]:
        """Returns a column."""
        return self._columns[name]

    def keys(self, at: Places) -> Sequence[str]:
        """Returns the keys at these places."""
        return [str(self._keys[place]) for place in at.tolist()]

    def hashes(self, at: Places) -> NDArray[np.uint64]:
        """Returns the hashes of the keys at these places; all are hashed once."""
        if self._hashes is None:
            self._hashes = key_hashes(self._keys)
        return self._hashes[at]


class Thinned:
    """Every so-manyth row of a batch, from its first."""

    def __init__(self, batch: Batch, every: int) -> None:
        self._batch, self._every = batch, every

    def __len__(self) -> int:
        return -(-len(self._batch) // self._every)

    def column(self, name: str) -> NDArray[Any]:
        """Returns a column of the rows that are left."""
        return self._batch.column(name)[:: self._every]

    def keys(self, at: Places) -> Sequence[str]:
        """Returns the keys at these places of the rows that are left."""
        return self._batch.keys(at * self._every)

    def hashes(self, at: Places) -> NDArray[np.uint64]:
        """Returns the hashes of the keys at these places of the rows that are left."""
        return self._batch.hashes(at * self._every)


class View:
    """A batch as the methods see it: every score a number, every row in a class or out."""

    def __init__(self, batch: Batch, rows: "Rows") -> None:
        self.batch, self._rows = batch, rows
        self._cache: dict[Hashable, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.batch)

    def once(self, name: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Returns what `make` gave when it was first asked for under this name."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def stored(self, name: str) -> NDArray[np.floating]:
        """Returns a column of scores as wide as it is stored, with what is missing filled in.

        A float32 column needs half the memory traffic of `scores`, and orders the same.
        """
        return self.once(("stored", name), lambda: self._filled(name))

    def scores(self, name: str) -> NDArray[np.float64]:
        """Returns a column of scores, float64 `[n]`, with what is missing filled in."""
        return self.once(name, lambda: self.stored(name).astype(np.float64))

    def classes(self) -> Places:
        """Returns the class of each row, int64 `[n]`, -1 for rows left out; 0 without classes."""
        return self.once("", lambda: self._rows.classes_of(self.batch))

    def _filled(self, name: str) -> NDArray[np.floating]:
        values = np.asarray(self.batch.column(name))
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        if self._rows.num_missing:
            finite = np.isfinite(values)
            if not finite.all():
                values = np.where(finite, values, values.dtype.type(self._rows.fill[name]))
        return values

    def hashes(self, at: Places) -> NDArray[np.uint64]:
        """Returns the hashes of the keys at these places."""
        return self.batch.hashes(at)


def one_group(groups: Places) -> bool:
    """Returns whether the groups are one number broadcast, so that nothing need be looked up."""
    return bool(groups.size) and groups.strides == (0,) and groups[0] >= 0


class Rows:
    """The rows of a selection, after one pass that checked them.

    Attributes:
        columns: Names of the score columns in use.
        counts: Rows that take part in each class, int64 `[C]`; one class when none is asked for.
        total: Rows that take part.
        low: The smallest finite score of each column.
        high: The largest finite score of each column.
        fill: What stands for a missing score of each column.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        columns: Sequence[str],
        *,
        missing: Missing = "error",
        by_class: str | None = None,
        num_threads: int = 1,
    ) -> None:
        if missing not in MISSING:
            raise ConfigError(f"missing must be one of {', '.join(MISSING)}, got {missing!r}.")
        self._batches, self.columns, self._missing = batches, tuple(columns), missing
        self._by_class, self._num_threads = by_class, num_threads
        self._scan()

    def map(self, step: Callable[[View], T], every: int = 1) -> Iterator[T]:
        """Yields the step's result for each batch, in their order; threads work ahead a little.

        Args:
            step: What is done with a batch; it may run in another thread.
            every: A step sees one row in so many of each batch, from its first.
        """
        if every == 1:
            return self._each(lambda batch: step(View(batch, self)))
        return self._each(lambda batch: step(View(Thinned(batch, every), self)))

    def classes_of(self, batch: Batch) -> Places:
        """Returns the class of each row of a batch, -1 for rows left out.

        Where all rows are of one class, a single number broadcast: see `one_group`.
        """
        classes = np.broadcast_to(np.int64(0), len(batch))
        if self._by_class is not None:
            labels = batch.column(self._by_class)
            if self._is_dense:
                classes = labels.astype(np.int64, copy=False)
            else:
                classes = np.searchsorted(self._labels, labels).astype(np.int64)
        if self._missing == "drop" and self.num_missing:
            classes = classes.copy()
            for name in self.columns:
                classes[~np.isfinite(batch.column(name))] = -1
        return classes

    def _each(self, step: Callable[[Batch], T]) -> Iterator[T]:
        if self._num_threads == 1 or len(self._batches) == 1:
            yield from map(step, self._batches)
            return
        with ThreadPoolExecutor(self._num_threads) as pool:
            ahead = 2 * self._num_threads
            futures = [pool.submit(step, batch) for batch in self._batches[:ahead]]
            for batch in self._batches[ahead:]:
                yield futures.pop(0).result()
                futures.append(pool.submit(step, batch))
            while futures:
                yield futures.pop(0).result()

    def _scan(self) -> None:
        """Checks every score and counts the classes, in one pass."""
        self.low = dict.fromkeys(self.columns, np.inf)
        self.high = dict.fromkeys(self.columns, -np.inf)
        self.num_missing = 0
        named: list[str] = []
        counts: dict[Any, int] = {}
        for lows, highs, bad, keys, labels in self._each(self._scan_batch):
            for name, low, high in zip(self.columns, lows, highs, strict=True):
                self.low[name] = min(self.low[name], low)
                self.high[name] = max(self.high[name], high)
            self.num_missing += bad
            named = (named + keys)[:5]
            for label, number in labels:
                counts[label] = counts.get(label, 0) + number
        if self.num_missing and self._missing == "error":
            raise DataError(
                f"scores must be finite, got {self.num_missing} that are not: {', '.join(named)}. "
                "Say what becomes of them: missing drop, hardest or easiest."
            )
        self._labels = np.array(sorted(counts))
        dense = np.arange(len(self._labels))
        # Labels 0 to C - 1, the usual ones, are their own classes: no search is needed.
        self._is_dense = self._labels.dtype.kind in "iu" and np.array_equal(self._labels, dense)
        self.counts = np.array([counts[label] for label in sorted(counts)], np.int64)
        self.total = int(self.counts.sum())
        if self.total == 0 or not all(np.isfinite(low) for low in self.low.values()):
            raise DataError("a selection needs at least one finite score, got none. Score first.")
        self.fill = {name: self._end(name) for name in self.columns}

    def _end(self, name: str) -> float:
        """Returns the end of a column that stands for what is missing of it."""
        high = (self._missing == "hardest") != (name in EASIER_IS_HIGHER)
        return float(self.high[name] if high else self.low[name])

    def _scan_batch(
        self, batch: Batch
    ) -> tuple[list[float], list[float], int, list[str], list[tuple[Any, int]]]:
        lows, highs = [], []
        good = np.ones(len(batch), bool)
        for name in self.columns:
            values = np.asarray(batch.column(name))
            ends = [values.min(initial=np.inf), values.max(initial=-np.inf)]
            # The ends say it for all: a NaN becomes both of them, and an infinity one.
            if values.size and not np.isfinite(ends).all():
                finite = np.isfinite(values)
                good &= finite
                values = values[finite]
                ends = [values.min(initial=np.inf), values.max(initial=-np.inf)]
            lows.append(float(ends[0]))
            highs.append(float(ends[1]))
        bad = np.flatnonzero(~good)
        named = list(batch.keys(bad[:5])) if bad.size else []
        part = good if self._missing == "drop" else np.ones(len(batch), bool)
        if self._by_class is None:
            return lows, highs, bad.size, named, [(0, int(part.sum()))]
        labels = _count_labels(batch.column(self._by_class), part)
        return lows, highs, bad.size, named, labels


def _count_labels(labels: NDArray[Any], part: NDArray[np.bool_]) -> list[tuple[Any, int]]:
    """Returns every label with how many of its rows take part."""
    small = labels.dtype.kind in "iu" and labels.size and 0 <= labels.min() <= labels.max() < 2**20
    if small:
        present = np.flatnonzero(np.bincount(labels))
        numbers = np.bincount(labels[part], minlength=int(present[-1]) + 1)[present]
    else:
        present, inverse = np.unique(labels, return_inverse=True)
        numbers = np.bincount(inverse[part], minlength=len(present))
    return list(zip(present.tolist(), numbers.tolist(), strict=True))
