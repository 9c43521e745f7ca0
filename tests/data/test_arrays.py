"""A split in memory: every row of the index is used or rejected, decoded once for a node."""

import io
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from raygrad.data import arrays as arrays_module
from raygrad.data.arrays import load_arrays, shared_arrays
from raygrad.data.index import build_index
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError, ResourceError
from tests.data.making import example, jpeg, png, put


@pytest.fixture
def index(tmp_path):
    """Forty images in two shards, the value of their pixels their number."""
    urls = [
        put(
            tmp_path,
            f"s{s}.tar",
            [m for n in range(s, 40, 2) for m in example(f"k{n:02d}", n % 4, "PNG", png(n))],
        )
        for s in range(2)
    ]
    return build_index(urls, [], val_fraction=0.1)


def test_pixels_labels_and_keys_belong_together(index):
    for split in ("train", "val"):
        loaded = load_arrays(index, split, channels=3)
        numbers = [int(key[1:]) for key in loaded.keys]
        assert loaded.images.shape == (len(numbers), 3, 4, 4)
        assert (loaded.images == np.array(numbers)[:, None, None, None]).all()
        assert loaded.images.dtype == np.uint8
        assert loaded.labels.tolist() == [n % 4 for n in numbers]
        assert loaded.keys == index.rows(split)["key"].to_pylist()


def test_one_shard_is_its_rows_and_grey_has_one_channel(index):
    loaded = load_arrays(index, "train", channels=1, shard="s1")
    assert {int(key[1:]) % 2 for key in loaded.keys} == {1}
    assert loaded.images.shape[1] == 1


def test_a_split_without_examples_is_empty(index):
    assert load_arrays(index, "test", channels=3).images.shape[0] == 0


def test_images_of_several_sizes_need_a_transform(tmp_path):
    members = [
        *example("a", 0, "jpg", jpeg(0, (40, 30))),
        *example("b", 0, "jpg", jpeg(1, (30, 50))),
    ]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=1e-9)
    with pytest.raises(DataError, match="one size"):
        load_arrays(index, "train", channels=3)
    loaded = load_arrays(index, "train", channels=3, transform=CropTransform(32, 28))
    assert loaded.images.shape == (2, 3, 28, 28)


def test_used_and_rejected_are_the_index_where_images_are_broken(tmp_path):
    members = [
        m for n in range(20) for m in example(f"k{n}", 0, "png", png(n) if n % 5 else b"broken")
    ]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=1e-9)
    loaded = load_arrays(index, "train", channels=3)
    assert sorted(loaded.rejects["key"].to_pylist()) == ["k0", "k10", "k15", "k5"]
    assert len(loaded.keys) == len(loaded.images) == len(loaded.labels) == 16


def test_a_shared_split_is_the_same_and_is_decoded_once(index, tmp_path, monkeypatch):
    folder = str(tmp_path / "cache")
    first = shared_arrays(index, "train", channels=3, folder=folder)
    monkeypatch.setattr(arrays_module, "decode_image", None)
    again = shared_arrays(index, "train", channels=3, folder=folder)
    monkeypatch.undo()
    direct = load_arrays(index, "train", channels=3)
    for shared in (first, again):
        assert isinstance(shared.images, np.memmap)
        assert not shared.images.flags.writeable
        np.testing.assert_array_equal(shared.images, direct.images)
        assert (shared.keys, shared.labels.tolist()) == (direct.keys, direct.labels.tolist())
        assert shared.rejects.equals(direct.rejects)


def test_other_pixels_of_the_same_size_are_decoded_anew(tmp_path):
    """The size of a BMP does not change with what it shows: an index of both is the same."""
    found = []
    for number, value in enumerate((10, 200)):
        members = [
            pair
            for at in range(3)
            for pair in example(f"k{at}", at, "bmp", encoded_bmp(value + at))
        ]
        url = put(tmp_path, "a.tar", members)
        os.utime(url, ns=(10**18 + number, 10**18 + number))
        index = build_index([url], [], val_fraction=0.0)
        arrays = shared_arrays(index, "train", channels=3, folder=str(tmp_path / "cache"))
        found.append((index.digest, arrays.images[:, 0, 0, 0].tolist()))
    assert found[0][0] == found[1][0]
    assert [values for _, values in found] == [[10, 11, 12], [200, 201, 202]]


def encoded_bmp(value):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (value, value, value)).save(buffer, "BMP")
    return buffer.getvalue()


def test_another_transform_or_split_is_another_file(index, tmp_path):
    folder = str(tmp_path / "cache")
    plain = shared_arrays(index, "train", channels=3, folder=folder)
    scaled = shared_arrays(index, "train", channels=3, folder=folder, transform=CropTransform(8, 8))
    val = shared_arrays(index, "val", channels=3, folder=folder)
    assert plain.images.shape[2:] == (4, 4)
    assert scaled.images.shape[2:] == (8, 8)
    assert set(val.keys).isdisjoint(plain.keys)


def _load(index, folder, results):
    calls = []
    decode = arrays_module.decode_image
    arrays_module.decode_image = lambda *a, **k: calls.append(1) or decode(*a, **k)
    arrays = shared_arrays(index, "train", channels=3, folder=folder)
    results.put((len(calls) == len(arrays.keys), len(calls), int(arrays.images.sum())))


def test_of_processes_that_start_together_one_decodes(index, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    folder = str(tmp_path / "cache")
    processes = [context.Process(target=_load, args=(index, folder, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(calls > 0 for _, calls, _ in found) == [False, False, True]
    assert [all_of_them for all_of_them, calls, _ in found if calls] == [True]
    assert len({total for _, _, total in found}) == 1


def test_rejects_leave_no_gap_in_memory_nor_in_the_file(tmp_path):
    members = [
        m for n in range(20) for m in example(f"k{n:02d}", 0, "png", png(n) if n % 5 else b"broken")
    ]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=1e-9)
    for arrays in (
        load_arrays(index, "train", channels=3),
        shared_arrays(index, "train", channels=3, folder=str(tmp_path / "cache")),
    ):
        numbers = [int(key[1:]) for key in arrays.keys]
        assert numbers == [n for n in range(20) if n % 5]
        assert (arrays.images == np.array(numbers)[:, None, None, None]).all()
        assert arrays.rejects.num_rows == 4


def test_a_process_killed_while_it_decodes_leaves_nothing_that_counts(index, tmp_path):
    folder = tmp_path / "cache"

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def main():
        arrays_module.decode_image = die
        shared_arrays(index, "train", channels=3, folder=str(folder))

    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(folder.rglob("*.arrow"))
    arrays = shared_arrays(index, "train", channels=3, folder=str(folder))
    np.testing.assert_array_equal(arrays.images, load_arrays(index, "train", channels=3).images)


def test_a_disk_without_room_is_named_before_anything_is_decoded(index, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="must fit the node's disk"):
        shared_arrays(index, "train", channels=3, folder=str(tmp_path / "cache"))
