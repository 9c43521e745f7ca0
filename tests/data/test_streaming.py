"""Streaming: every example once an epoch, equal batches on all ranks, any number of workers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from raygrad.data.decode import decode_image
from raygrad.data.index import build_index
from raygrad.data.streaming import ExampleStream, batch_bounds
from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import key_hashes
from tests.data.making import example, png, put

COUNTS = (1, 17, 30, 5)
NUM_EXAMPLES = sum(COUNTS)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Four shards of very different counts; every image shows its own number."""
    folder, urls, number = tmp_path_factory.mktemp("shards"), [], 0
    for shard, count in enumerate(COUNTS):
        members = []
        for _ in range(count):
            members += example(f"k{number:03d}", number % 3, image=png(number))
            number += 1
        urls.append(put(folder, f"train-{shard}.tar", members))
    return build_index(urls, [], val_fraction=0.0)


def decode(example, epoch):
    return decode_image(example.image)


def epoch(index, *, world_size, workers=0, epoch=0, **options):
    """The batches of every rank."""
    ranks = []
    for rank in range(world_size):
        stream = ExampleStream(index, "train", decode, rank=rank, world_size=world_size, **options)
        stream.set_epoch(epoch)
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        ranks.append(list(loader))
        assert len(ranks[-1]) == len(stream)
    return ranks


@given(
    num_examples=st.integers(1, 3_000),
    batch_size=st.integers(1, 300),
    world_size=st.integers(1, 40),
)
def test_batches_are_even_and_hold_everything(num_examples, batch_size, world_size):
    if num_examples < world_size:
        with pytest.raises(ConfigError):
            batch_bounds(num_examples, batch_size, world_size)
        return
    sizes = np.diff(batch_bounds(num_examples, batch_size, world_size))
    assert sizes.sum() == num_examples
    assert len(sizes) % world_size == 0
    assert sizes.max() <= batch_size
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("world_size", "workers"), [(1, 0), (2, 0), (3, 0), (7, 0), (1, 2), (3, 2)]
)
@pytest.mark.parametrize("shuffle_buffer", [0, 8])
def test_every_example_once_and_as_many_batches_everywhere(
    index, world_size, workers, shuffle_buffer
):
    ranks = epoch(
        index, world_size=world_size, workers=workers, batch_size=4, shuffle_buffer=shuffle_buffer
    )
    assert len({len(batches) for batches in ranks}) == 1
    keys = [key for batches in ranks for batch in batches for key in batch.keys]
    assert sorted(keys) == sorted(index.examples["key"].to_pylist())
    for batches in ranks:
        for batch in batches:
            shown = batch.images[:, 0, 0, 0].tolist()
            assert shown == [int(key[1:]) for key in batch.keys]
            assert batch.labels.tolist() == [number % 3 for number in shown]


def test_more_workers_than_batches_change_nothing(index):
    ranks = epoch(index, world_size=1, workers=2, batch_size=NUM_EXAMPLES)
    assert sum(len(batch.keys) for batch in ranks[0]) == NUM_EXAMPLES


def test_epochs_differ_and_repeat(index):
    """An epoch is a function of seed and number; shuffling reaches every example."""
    options = {"world_size": 1, "batch_size": 4, "shuffle_buffer": 16}

    def order(number, seed=0):
        batches = epoch(index, epoch=number, seed=seed, **options)[0]
        return [key for batch in batches for key in batch.keys]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)
    assert len(set(order(1))) == NUM_EXAMPLES


def test_without_a_buffer_the_order_is_the_index_s(index):
    batches = epoch(index, world_size=1, batch_size=7)[0]
    keys = [key for batch in batches for key in batch.keys]
    assert keys == index.examples["key"].to_pylist()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_rejects_of_their_batch(tmp_path, workers):
    """Used and rejected are all examples, and no rank loses a batch."""
    members = []
    for number in range(12):
        image = b"no image" if number in (0, 1, 2, 3, 9) else png(number)
        members += example(f"k{number:02d}", 0, image=image)
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    batches = epoch(index, world_size=1, workers=workers, batch_size=4)[0]
    used = [key for batch in batches for key in batch.keys]
    rejected = [row["key"] for batch in batches for row in batch.rejects]
    assert len(batches) == 3
    assert sorted(rejected) == ["k00", "k01", "k02", "k03", "k09"]
    assert sorted(used + rejected) == index.examples["key"].to_pylist()
    assert all(row["shard"] == "a" and row["reason"] for b in batches for row in b.rejects)


def test_images_of_different_sizes_are_an_error(tmp_path):
    members = [*example("a", image=png(size=(4, 4))), *example("b", image=png(size=(5, 4)))]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    with pytest.raises(DataError, match="one size"):
        epoch(index, world_size=1, batch_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_know_example_and_epoch(index, workers):
    """A random crop can be drawn from (seed, epoch, key hash) alone."""

    def shows_its_epoch(example, epoch):
        assert example.key_hash == key_hashes([example.key])[0]
        return np.full((1, 1, 1), epoch, np.uint8)

    stream = ExampleStream(index, "train", shows_its_epoch, batch_size=8)
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    for number in (3, 4):
        stream.set_epoch(number)
        assert {v for batch in loader for v in batch.images.flatten().tolist()} == {number}
