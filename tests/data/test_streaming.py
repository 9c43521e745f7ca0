"""An epoch gives every example exactly once, in as many batches on every rank."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrad.data import streaming
from raygrad.data.index import build_index
from raygrad.data.streaming import Consumer, epoch_batches, num_batches
from raygrad.errors import ConfigError
from tests.data.making import example, put

COUNTS = (7, 100, 1, 60, 29)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """197 examples in five shards of very different length."""
    folder, at, urls = tmp_path_factory.mktemp("shards"), 0, []
    for shard, count in enumerate(COUNTS):
        keys = [f"k{n:03d}" for n in range(at, at + count)]
        at += count
        urls.append(
            put(
                folder,
                f"s{shard}.tar",
                [m for key in keys for m in example(key, 0, "jpg", key.encode())],
            )
        )
    return build_index(urls, [], val_fraction=1e-9)


def consumers(world_size, num_workers):
    return [
        Consumer(rank, world_size, worker, num_workers)
        for rank in range(world_size)
        for worker in range(num_workers)
    ]


def epoch(index, batch_size, consumer, **options):
    batches = epoch_batches(index, "train", batch_size=batch_size, consumer=consumer, **options)
    return [[data.decode() for _, data in batch] for batch in batches]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(2, 80),
    st.sampled_from([None, 0, 7]),
    st.sampled_from([5, 64, 1024]),
)
def test_every_example_comes_once_and_every_rank_has_as_many_batches(
    index, world_size, num_workers, batch_size, seed, window
):
    mine = consumers(world_size, num_workers)
    whole, streaming.WINDOW = streaming.WINDOW, window
    try:
        batches = [epoch(index, batch_size, one, seed=seed) for one in mine]
    finally:
        streaming.WINDOW = whole
    assert {len(one) for one in batches} == {num_batches(197, batch_size, mine[0])}
    sizes = [len(batch) for one in batches for batch in one]
    assert 1 <= min(sizes) <= max(sizes) <= batch_size
    keys = [key for one in batches for batch in one for key in batch]
    assert sorted(keys) == [f"k{n:03d}" for n in range(197)]


def test_the_bytes_belong_to_the_row(index):
    for batch in epoch_batches(index, "train", batch_size=16, seed=3):
        assert [row["key"] for row, _ in batch] == [data.decode() for _, data in batch]


def test_without_a_seed_the_order_is_that_of_the_shards(index):
    batches = epoch(index, 10, Consumer())
    assert list(itertools.chain(*batches)) == [f"k{n:03d}" for n in range(197)]


def test_a_seed_and_epoch_give_one_order_and_another_epoch_another(index):
    orders = {
        (seed, at): epoch(index, 10, Consumer(), seed=seed, epoch=at)
        for seed in (0, 1)
        for at in (0, 1)
    }
    assert orders[0, 0] == epoch(index, 10, Consumer(), seed=0, epoch=0)
    assert len({str(order) for order in orders.values()}) == 4


def test_shuffling_mixes_examples_of_a_shard(index):
    order = list(itertools.chain(*epoch(index, 10, Consumer(), seed=0)))
    positions = np.array([int(key[1:]) for key in order])
    assert np.abs(np.diff(positions)).mean() > 20


def test_too_few_examples_for_so_many_workers_are_refused(index):
    with pytest.raises(ConfigError, match="197 examples for 200 workers"):
        epoch(index, 8, Consumer(world_size=100, num_workers=2))
    with pytest.raises(ConfigError, match="batches of 1"):
        epoch(index, 1, Consumer(world_size=2))


def test_a_split_is_streamed_without_the_others(tmp_path):
    url = put(
        tmp_path, "a.tar", [m for n in range(200) for m in example(f"k{n}", 0, "jpg", b"%d" % n)]
    )
    index = build_index([url], [], val_fraction=0.3)
    for split in ("train", "val"):
        keys = [
            row["key"] for batch in epoch_batches(index, split, batch_size=7) for row, _ in batch
        ]
        assert sorted(keys) == sorted(index.rows(split)["key"].to_pylist())
