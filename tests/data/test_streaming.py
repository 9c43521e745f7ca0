"""Streaming: each image where it is asked for, read together with others, and only then decoded."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raygrad.data import streaming
from raygrad.data.arrays import load_arrays
from raygrad.data.index import build_index
from raygrad.data.streaming import StreamedImages, dealt
from raygrad.data.transforms import CropTransform, _random_part
from raygrad.errors import DataError
from tests.data.making import example, jpeg, png, put

COUNTS = (1, 17, 30, 5)


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


@pytest.fixture(scope="module")
def images(index):
    return StreamedImages(index, index.rows("train"), (3, 4, 4), None)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, sum(COUNTS) - 1), min_size=1, max_size=9), max_size=12),
    st.sampled_from([1, 200, 1000, 10**9]),
)
def test_batches_come_in_order_whatever_is_read_together(images, batches, group_bytes):
    work = [(7 * n, np.array(batch), images.plain) for n, batch in enumerate(batches)]
    found = list(images.batches(work, group_bytes))
    assert [number for number, _ in found] == [number for number, *_ in work]
    assert [pixels[:, 0, 0, 0].tolist() for _, pixels in found] == batches


@pytest.fixture
def read(monkeypatch):
    """The keys of each reading."""
    read, rows_of = [], streaming.read_rows

    def counted(index, rows):
        read.append(rows["key"].to_pylist())
        return rows_of(index, rows)

    monkeypatch.setattr(streaming, "read_rows", counted)
    return read


def test_nothing_is_read_twice_and_groups_grow(images, read):
    order = np.random.default_rng(0).permutation(53)
    list(images.batches([(n, order[n : n + 4], images.plain) for n in range(0, 53, 4)]))
    assert [len(keys) for keys in read] == [4, 8, 16, 25]
    assert sorted(itertools.chain(*read)) == images.rows["key"].to_pylist()


def epochs(images, count, size=7):
    """Batches of so many epochs, each in an order of its own."""
    num = images.shape[0]
    orders = [np.random.default_rng(epoch).permutation(num) for epoch in range(count)]
    parts = np.array_split(np.concatenate(orders), size * count)
    return [(n, at, images.plain) for n, at in enumerate(parts)]


def test_a_subset_that_a_group_holds_is_read_once_for_all_epochs(images, read):
    """Only the bytes are held: what is decoded comes anew, and the images are those asked for."""
    subset = images.chosen(np.arange(1, 53, 3))
    num_bytes = int(subset.rows["size"].to_numpy().sum())
    work = epochs(subset, 5)
    found = [pixels[:, 0, 0, 0].tolist() for _, pixels in subset.batches(work, num_bytes)]
    assert found == [(1 + 3 * at).tolist() for _, at, _ in work]
    assert sorted(itertools.chain(*read)) == sorted(subset.rows["key"].to_pylist())


def test_of_a_larger_one_no_more_is_held_than_the_last_group(images, read):
    """What it shares with the next is not read again, all else is, and memory stays bounded."""
    num_bytes = int(images.rows["size"].to_numpy().sum())
    held = streaming._Held(images, num_bytes - 1)
    _, first = held.read([(0, np.array([4, 1, 1]), images.plain), (1, np.array([9]), images.plain)])
    _, second = held.read([(2, np.array([9, 30]), images.plain)])
    _, third = held.read([(3, np.array([1]), images.plain)])
    assert [sorted(group) for group in (first, second, third)] == [[1, 4, 9], [9, 30], [1]]
    assert read == [["k001", "k004", "k009"], ["k030"], ["k001"]]


def test_a_subset_is_those_images(images):
    chosen = images.chosen(np.array([2, 20, 51]))
    assert chosen.shape == (3, 3, 4, 4)
    assert chosen.read(np.array([2, 0]))[:, 0, 0, 0].tolist() == [51, 2]


def test_streamed_pixels_are_those_of_memory(tmp_path):
    sizes = [(40, 30), (31, 44), (90, 70)]
    members = [m for n in range(6) for m in example(f"{n}", 0, "jpg", jpeg(n, sizes[n % 3]))]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    transform = CropTransform.to_size(14)
    images = StreamedImages(index, index.rows("train"), (3, 14, 14), transform)
    expected = load_arrays(index, "train", channels=3, transform=transform).images
    np.testing.assert_array_equal(images.read(np.arange(6)), expected)


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 1.0), st.integers(0, 2**32))
def test_a_random_part_lies_within_the_photograph_and_is_as_large_as_asked(
    width, height, scale, seed
):
    left, top, w, h = _random_part(width, height, scale, np.random.default_rng(seed))
    assert 0 <= left <= left + w <= width
    assert 0 <= top <= top + h <= height
    assert w >= 1
    assert h >= 1
    if min(width, height) >= 50 and max(width, height) <= 4 / 3 * min(width, height):
        assert w * h >= (scale - 0.05) * width * height
        assert 0.7 < w / h < 1.43


def test_a_resized_crop_is_that_part_of_the_photograph_scaled():
    """Against Pillow's own crop and scaling; of all the photograph where all is asked for."""
    photograph = Image.open(io.BytesIO(jpeg(3, (60, 50))))
    drawn = {"seed": 1, "epoch": 2, "key_hash": 2**63 + 5}
    for scale in (0.3, 1.0):
        found = CropTransform.to_size(28).resized_crop(jpeg(3, (60, 50)), scale=scale, **drawn)
        generator = np.random.default_rng([1, 2, 2**63 + 5])
        left, top, w, h = _random_part(60, 50, scale, generator)
        part = photograph.resize(
            (28, 28), Image.Resampling.BILINEAR, (left, top, left + w, top + h)
        )
        np.testing.assert_array_equal(found, np.asarray(part))
    assert (w, h) == (60, 50)


@pytest.mark.parametrize("now", [b"no image", png(1, (5, 4))])
def test_an_image_that_changed_is_named(tmp_path, now):
    index = build_index([put(tmp_path, "a.tar", example("k", 0, image=now))], [], val_fraction=0.0)
    images = StreamedImages(index, index.rows("train"), (3, 4, 4), None)
    with pytest.raises(DataError, match=r"must stay .*'k' in a\. Index the data again"):
        images.read(np.array([0]))


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 9))
def test_items_are_dealt_out_in_turn(count, num_workers):
    hands = [list(dealt(range(count), worker, num_workers)) for worker in range(num_workers)]
    assert sorted(itertools.chain(*hands)) == list(range(count))
    assert all(item % num_workers == worker for worker, hand in enumerate(hands) for item in hand)
