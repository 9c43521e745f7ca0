"""One decoded file a node: the same pixels as decoding in memory, made once, shared by all."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from raygrad.data import shared_arrays as module
from raygrad.data.arrays import load_arrays
from raygrad.data.index import build_index
from raygrad.data.shared_arrays import shared_arrays
from raygrad.errors import DataError
from tests.data.making import example, png, put


@pytest.fixture
def index(tmp_path):
    urls = []
    for shard in range(2):
        members = []
        for at in range(15):
            number = 15 * shard + at
            image = b"\x89PNG cut" if number in (4, 20) else png(number, size=(6, 5))
            members += example(f"k{number:02d}", number % 3, image=image)
        urls.append(put(tmp_path, f"train-{shard}.tar", members))
    return build_index(urls, [], val_fraction=0.2)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_holds_what_decoding_in_memory_gives(index, tmp_path, split, channels):
    shared = shared_arrays(index, split, channels=channels, folder=str(tmp_path / "cache"))
    plain = load_arrays(index, split, channels=channels)
    assert np.array_equal(shared.images, plain.images)
    assert np.array_equal(shared.labels, plain.labels)
    assert list(shared.keys) == list(plain.keys)
    assert shared.rejects.select(["shard", "key"]).equals(plain.rejects.select(["shard", "key"]))
    assert len(shared.keys) + shared.rejects.num_rows == index.rows(split).num_rows


def test_the_pixels_are_mapped_read_only(index, tmp_path):
    images = shared_arrays(index, "train", channels=3, folder=str(tmp_path / "cache")).images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def _pixel_sum(index, folder):
    arrays = shared_arrays(index, "train", channels=3, folder=folder)
    return int(arrays.images.sum()), len(arrays.keys)


def test_processes_that_ask_at_once_make_it_once(index, tmp_path):
    """All get the same pixels; one folder and its lock are left, nothing half made."""
    folder = str(tmp_path / "cache")
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        found = set(pool.map(_pixel_sum, [index] * 6, [folder] * 6))
    assert len(found) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_it_is_not_decoded_again(index, tmp_path, monkeypatch):
    folder = str(tmp_path / "cache")
    shared_arrays(index, "train", channels=3, folder=folder)
    monkeypatch.delattr(module, "decode_image")
    shared_arrays(index, "train", channels=3, folder=folder)
    with pytest.raises(NameError):
        shared_arrays(index, "train", channels=1, folder=folder)


def test_one_that_failed_leaves_nothing(tmp_path):
    members = [*example("a", image=png(size=(4, 4))), *example("b", image=png(size=(5, 4)))]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    with pytest.raises(DataError, match=r"one size.*in a, 'b'"):
        shared_arrays(index, "train", channels=3, folder=str(tmp_path / "cache"))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_split_of_rejects_alone_is_empty(tmp_path):
    url = put(tmp_path, "a.tar", example("a", image=b"nothing"))
    index = build_index([url], [], val_fraction=0.0)
    arrays = shared_arrays(index, "train", channels=3, folder=str(tmp_path / "cache"))
    assert arrays.images.shape == (0, 3, 0, 0)
    assert arrays.rejects["key"].to_pylist() == ["a"]
