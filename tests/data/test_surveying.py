"""One look at images that are not kept: the same rejects and counts as of those in memory."""

import os

import numpy as np
import pytest

from raygrad.data import surveying
from raygrad.data.arrays import load_arrays
from raygrad.data.index import build_index
from raygrad.data.surveying import survey
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError
from tests.data.making import example, jpeg, png, put


def image_of(number):
    return b"no image" if number in (0, 11, 12) else jpeg(number, (30 + number, 28))


@pytest.fixture
def index(tmp_path):
    """Three shards of photographs; three of them cannot be decoded."""
    urls = [
        put(
            tmp_path,
            f"{name}.tar",
            [m for n in range(at, at + 8) for m in example(f"k{n:02d}", 0, "jpg", image_of(n))],
        )
        for name, at in (("a", 0), ("b", 8), ("c", 16))
    ]
    return build_index(urls, [], val_fraction=0.0)


OPTIONS = {"channels": 3, "transform": CropTransform.to_size(14)}


def look(index, tmp_path, **options):
    return survey(index, "train", folder=str(tmp_path / "survey"), **{**OPTIONS, **options})


def test_rejects_counts_and_size_are_those_of_memory(index, tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "_COUNTED", 1500)  # three images at a time
    expected = load_arrays(index, "train", **OPTIONS)
    for found in (look(index, tmp_path), look(index, tmp_path, map_fn=None)):  # then as kept
        assert found.rejects.equals(expected.rejects)
        np.testing.assert_array_equal(found.counts, expected.counts)
        assert found.image_shape == (3, 14, 14)
        usable = found.usable(index.rows("train"))
        assert usable["key"].to_pylist() == list(expected.keys)


def test_a_look_that_was_cut_off_goes_on_with_the_shards_that_are_left(index, tmp_path):
    def dies(call, tasks):
        for at, task in enumerate(tasks):
            if at == 2:
                raise KeyboardInterrupt
            yield call(task)

    with pytest.raises(KeyboardInterrupt):
        look(index, tmp_path, map_fn=dies)
    os.remove(index.shard_url("a"))  # what was looked at is not needed again
    os.remove(index.shard_url("b"))
    found = look(index, tmp_path)
    assert found.rejects["key"].to_pylist() == ["k00", "k11", "k12"]
    assert [path.suffix for path in (tmp_path / "survey").iterdir()] == [".parquet"]


def test_another_transform_is_another_look(index, tmp_path):
    look(index, tmp_path)
    assert look(index, tmp_path, transform=CropTransform.to_size(7)).image_shape == (3, 7, 7)


@pytest.mark.parametrize("together", [True, False])
def test_images_must_have_one_size_within_shards_and_between_them(tmp_path, together):
    parts = [example("x", image=png(1, (4, 4))), example("y", image=png(1, (5, 4)))]
    if together:
        parts = [parts[0] + parts[1]]
    urls = [put(tmp_path, f"{at}.tar", members) for at, members in enumerate(parts)]
    index = build_index(urls, [], val_fraction=0.0)
    with pytest.raises(DataError, match=r"one size, got .*3, 4, 4.*3, 4, 5.* --image-size"):
        look(index, tmp_path, transform=None)


def test_of_nothing_but_rejects_there_is_no_size(tmp_path):
    index = build_index([put(tmp_path, "a.tar", example("x", image=b"no"))], [], val_fraction=0.0)
    for _ in range(2):
        found = look(index, tmp_path)
        assert (found.image_shape, found.counts.sum(), found.rejects.num_rows) == (None, 0, 1)
