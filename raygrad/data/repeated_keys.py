"""Keys that stand in more than one shard: found by their hashes, and told apart by their shards.

Keys that are counted anew in each shard or split are different examples: the shard's name is put
before a key that an earlier shard holds. What is held is numbers, some a row, and no key.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.selection.keyed_random import key_hashes


class HashStore:
    """Hashes of all rows, in one array that grows in place."""

    def __init__(self) -> None:
        self._values, self._num = np.empty(2**16, np.uint64), 0

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Adds the hashes of a shard."""
        end = self._num + len(hashes)
        if end > len(self._values):
            # By a reallocation: the rows that are there are not copied beside themselves.
            self._values.resize(end + end // 8, refcheck=False)
        self._values[self._num : end] = hashes
        self._num = end

    def sorted(self) -> NDArray[np.uint64]:
        """Returns them in their order, and holds them no longer."""
        self._values.resize(self._num, refcheck=False)
        values, self._values, self._num = self._values, np.empty(0, np.uint64), 0
        values.sort()
        return values


@dataclass(frozen=True)
class Distinct:
    """A shard's rows, no key of which another example has."""

    rows: pa.Table
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """Keys that an earlier shard holds, and that shard."""
    taken: list[tuple[str, str]] = field(default_factory=list)
    """Those of them that could not be renamed, for another example has that name."""
    left_out: pa.Table | None = None
    """The rows of those."""


class RepeatedKeys:
    """Tells which keys stand in an earlier shard, however often it is asked for a shard.

    Shards must be asked for in their order the first time. The keys themselves count, by two
    hashes of 64 bits, and not the first hash alone.

    Args:
        hashes: Of the keys of all rows, in order.
        names: Of the shards, in their order.
    """

    def __init__(self, hashes: NDArray[np.uint64], names: list[str]) -> None:
        again = np.flatnonzero(hashes[1:] == hashes[:-1])
        self._suspects = np.unique(hashes[again])
        self._hashes = hashes if len(self._suspects) else hashes[:0].copy()
        self._names = names
        self._first = np.full(len(self._suspects), -1, np.int32)
        self._second_hash = np.zeros(len(self._suspects), np.uint64)
        self._others: dict[str, int] = {}  # keys that share the first hash with another key

    def __bool__(self) -> bool:
        return len(self._suspects) > 0

    def distinct(self, at: int, rows: pa.Table) -> Distinct:
        """Puts the shard's name before keys that an earlier shard holds.

        Args:
            at: Which shard.
            rows: Its rows, with columns ``key`` and ``key_hash``.
        """
        places = _places(self._suspects, rows["key_hash"].to_numpy())
        positions = np.flatnonzero(places >= 0)
        keys = rows["key"].take(pa.array(positions)).to_pylist()
        found = [self._owner(at, int(places[p]), k) for p, k in zip(positions, keys, strict=True)]
        again = [one for one, owner in enumerate(found) if owner != at]
        if not again:
            return Distinct(rows)
        renamed = [(keys[one], self._names[found[one]]) for one in again]
        names = [f"{self._names[at]}/{key}" for key, _ in renamed]
        hashes = key_hashes(names)
        # A name that another example bears already, by its hash, would be a duplicate of its own.
        is_taken = _places(self._hashes, hashes) >= 0
        return Distinct(
            _renamed(rows, positions[again], names, hashes, is_taken),
            renamed,
            [one for one, taken in zip(renamed, is_taken, strict=True) if taken],
            rows.take(pa.array(positions[again][is_taken])),
        )

    def _owner(self, at: int, place: int, key: str) -> int:
        """Returns the first shard that holds a key of a repeated hash."""
        second = _second_hash(key)
        if self._first[place] < 0:
            self._first[place], self._second_hash[place] = at, second
        elif self._second_hash[place] != second:
            return self._others.setdefault(key, at)
        return int(self._first[place])


def _places(ordered: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns where each value stands in an ordered array, -1 where it does not."""
    if not len(ordered):
        return np.full(len(values), -1, np.int64)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.where(ordered[places] == values, places, -1)


def _second_hash(key: str) -> int:
    digest = hashlib.blake2b(key.encode(), digest_size=8, salt=b"second").digest()
    return int.from_bytes(digest, "little")


def _renamed(
    rows: pa.Table,
    positions: NDArray[np.int64],
    names: list[str],
    hashes: NDArray[np.uint64],
    is_taken: NDArray[np.bool_],
) -> pa.Table:
    """Returns rows with other keys at some positions, without those that are taken."""
    keys, new_hashes = rows["key"].to_pylist(), rows["key_hash"].to_numpy().copy()
    for position, name in zip(positions.tolist(), names, strict=True):
        keys[position] = name
    new_hashes[positions] = hashes
    keep = np.ones(len(keys), bool)
    keep[positions[is_taken]] = False
    for name, values in (("key", pa.array(keys, pa.string())), ("key_hash", pa.array(new_hashes))):
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows.filter(pa.array(keep))
