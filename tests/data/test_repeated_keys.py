"""Repeated keys, shard by shard, against a walk over all rows with a dictionary of their keys."""

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from raygrad.data.repeated_keys import HashStore, RepeatedKeys
from raygrad.selection.keyed_random import key_hashes

NAMES = ["a", "b", "c-1", "d"]


def table(keys: Sequence[str], hashes: np.ndarray | None = None) -> pa.Table:
    return pa.table({"key": keys, "key_hash": key_hashes(keys) if hashes is None else hashes})


def told(shards: list[pa.Table]) -> RepeatedKeys:
    store = HashStore()
    for rows in shards:
        store.add(rows["key_hash"].to_numpy())
    return RepeatedKeys(store.sorted(), NAMES)


def walked(shards: list[list[str]]) -> tuple[list[list[str]], list, list]:
    """Returns keys, renamed and taken as one dictionary of all keys has them."""
    first: dict[str, str] = {}
    bear = {key for keys in shards for key in keys}
    found, renamed, taken = [], [], []
    for name, keys in zip(NAMES, shards, strict=True):
        found.append([])
        for key in keys:
            new = f"{name}/{key}"
            if key not in first:
                first[key] = name
                found[-1].append(key)
                continue
            renamed.append((key, first[key]))
            if new in bear:
                taken.append((key, first[key]))
            else:
                found[-1].append(new)
    return found, renamed, taken


@pytest.mark.parametrize("seed", range(30))
def test_shard_by_shard_is_as_one_walk_over_all_keys(seed):
    """Names that another example bears and keys with slashes included; asked twice it is so too."""
    rng = random.Random(seed)
    pool = [f"{n}" for n in range(12)] + [f"{name}/{n}" for name in NAMES for n in range(6)]
    keys = [rng.sample(pool, rng.randrange(len(pool))) for _ in NAMES]
    shards = [table(one) if one else table(["x"]).slice(1) for one in keys]
    repeated = told(shards)
    wanted, renamed, taken = walked(keys)
    assert bool(repeated) == bool(renamed)
    for _ in range(2):
        found = [repeated.distinct(at, rows) for at, rows in enumerate(shards)]
        assert [one.rows["key"].to_pylist() for one in found] == wanted
        assert [two for one in found for two in one.renamed] == renamed
        assert [two for one in found for two in one.taken] == taken
        for one in found:
            hashes = one.rows["key_hash"].to_numpy()
            assert np.array_equal(hashes, key_hashes(one.rows["key"].to_pylist()))
    left_out = [one.left_out["key"].to_pylist() for one in found if one.left_out is not None]
    assert [key for keys in left_out for key in keys] == [key for key, _ in taken]


def test_keys_that_share_a_hash_and_are_others_stay_as_they_are():
    """Three keys of one hash in three shards, and one of them again: only that one is renamed."""
    same = np.array([7], np.uint64)
    shards = [table([key], same) for key in ("x", "y", "z", "y")]
    repeated = told(shards)
    found = [repeated.distinct(at, rows).rows["key"].to_pylist() for at, rows in enumerate(shards)]
    assert found == [["x"], ["y"], ["z"], ["d/y"]]


def test_a_store_gives_back_all_hashes_in_order_however_they_came():
    rng = np.random.default_rng(0)
    pieces = [rng.integers(0, 2**63, n, np.uint64) for n in (0, 3, 70_000, 1, 200_000, 0)]
    store = HashStore()
    for piece in pieces:
        store.add(piece)
    assert np.array_equal(store.sorted(), np.sort(np.concatenate(pieces)))
