"""Decoded splits on disk: a killed decode goes on, what vanished is made again, old ones go."""

import errno
import multiprocessing
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from raygrad.data import arrays as arrays_module
from raygrad.data import decoded_cache
from raygrad.data.arrays import load_arrays, shared_arrays
from raygrad.data.decoded_cache import user_folder
from raygrad.data.index import build_index
from raygrad.errors import DataError, ResourceError
from raygrad.training.preprocess import channel_statistics, counted_statistics
from tests.data.making import example, jpeg, png, put

SHARDS, EACH = 6, 5


@pytest.fixture
def index(tmp_path):
    """Thirty images in six shards; each shard's third one is broken."""
    urls = []
    for shard in range(SHARDS):
        members = []
        for at in range(shard * EACH, (shard + 1) * EACH):
            members += example(f"k{at:02d}", at % 3, "png", png(at) if at % EACH != 2 else b"no")
        urls.append(put(tmp_path, f"t-{shard}.tar", members))
    return build_index(urls, [], val_fraction=0.0)


@pytest.fixture(autouse=True)
def unheld():
    """What a test maps may be evicted by the next one."""
    yield
    for lock in decoded_cache._used.values():
        lock.close()
    decoded_cache._used.clear()


def decoded(index, folder, **options):
    return shared_arrays(index, "train", channels=3, folder=str(folder), **options)


def in_a_process(work):
    """Returns how a process ended that did some work."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


def equal(found, expected):
    np.testing.assert_array_equal(found.images, expected.images)
    assert (found.labels.tolist(), list(found.keys)) == (
        expected.labels.tolist(),
        list(expected.keys),
    )
    assert found.rejects.equals(expected.rejects)
    np.testing.assert_array_equal(found.counts, expected.counts)


@pytest.mark.parametrize("dies_at", [1, 7, 23])
def test_a_decode_that_is_killed_goes_on_with_the_shards_that_are_left(index, tmp_path, dies_at):
    decode, calls = arrays_module.decode_image, []

    def dying(data, **options):
        calls.append(1)
        if len(calls) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(data, **options)

    def killed():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread: shard after shard
        arrays_module.decode_image = dying
        decoded(index, tmp_path / "cache")

    assert in_a_process(killed) == -signal.SIGKILL
    again = []
    arrays_module.decode_image = lambda *a, **k: again.append(1) or decode(*a, **k)
    try:
        found = decoded(index, tmp_path / "cache")
    finally:
        arrays_module.decode_image = decode
    whole = (dies_at - 1) // EACH
    assert len(again) == (SHARDS - whole) * EACH
    equal(found, load_arrays(index, "train", channels=3))
    assert not list(tmp_path.rglob("*.parts"))


def test_a_process_killed_while_images_close_up_costs_the_decode_and_no_image(index, tmp_path):
    """Images have moved by then, so that no part is true any more."""

    def half_closed(images, used):
        images[used[0]] = 7
        os.kill(os.getpid(), signal.SIGKILL)

    def killed():
        arrays_module._closed_up = half_closed
        decoded(index, tmp_path / "cache")

    assert in_a_process(killed) == -signal.SIGKILL
    equal(decoded(index, tmp_path / "cache"), load_arrays(index, "train", channels=3))


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 500)])
def test_pixels_that_vanished_or_were_cut_are_made_again(index, tmp_path, harm):
    """As what cleans temporary files does; they are never taken for a split without images."""
    decoded(index, tmp_path / "cache")
    (pixels,) = tmp_path.rglob("*.npy")
    harm(pixels)
    equal(decoded(index, tmp_path / "cache"), load_arrays(index, "train", channels=3))


def _garbage(path):
    path.write_bytes(bytes(path.stat().st_size))


def _cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize("ending", ["npy", "arrow"])
@pytest.mark.parametrize("harm", [_garbage, _cut, lambda path: path.write_bytes(b"")])
def test_files_that_a_loss_of_power_damaged_are_made_again(index, tmp_path, ending, harm):
    """Of pixels and of what is known of them; no stack trace and no blank image."""
    decoded(index, tmp_path / "cache")
    (path,) = tmp_path.rglob(f"*.{ending}")
    harm(path)
    equal(decoded(index, tmp_path / "cache"), load_arrays(index, "train", channels=3))


@pytest.mark.parametrize("harm", [_garbage, _cut])
def test_a_damaged_part_of_a_killed_decode_is_decoded_again(index, tmp_path, harm):
    def killed():
        decoded_cache.CacheEntry.is_closing_up = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        decoded(index, tmp_path / "cache")

    assert in_a_process(killed) == -signal.SIGKILL
    harm(next(tmp_path.rglob("*.parts/*.arrow")))
    equal(decoded(index, tmp_path / "cache"), load_arrays(index, "train", channels=3))


def test_pixels_that_vanish_before_they_are_mapped_are_an_error(index, tmp_path, monkeypatch):
    decoded(index, tmp_path / "cache")
    hold = decoded_cache.CacheEntry.hold

    def cleaned(entry):
        hold(entry)
        entry._pixels.unlink()

    monkeypatch.setattr(decoded_cache.CacheEntry, "hold", cleaned)
    with pytest.raises(ResourceError, match="must stay while they are used, got none at"):
        decoded(index, tmp_path / "cache")


def test_a_split_whose_every_image_is_broken_is_empty_and_is_no_vanished_one(tmp_path):
    members = [m for n in range(3) for m in example(f"k{n}", 0, "png", b"broken")]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    for _ in range(2):
        found = decoded(index, tmp_path / "cache")
        assert (found.images.shape[0], len(found.labels), found.rejects.num_rows) == (0, 0, 3)


def test_a_disk_that_is_full_is_met_before_anything_is_decoded(index, tmp_path, monkeypatch):
    """Every block is taken at once: a write to a map of a full disk would kill the process."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match=r"must fit the node's disk.*--data.cache-dir"):
        decoded(index, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.npy"))


def test_what_is_allocated_is_there_in_whole_blocks(index, tmp_path):
    found = decoded(index, tmp_path / "cache")
    (pixels,) = tmp_path.rglob("*.npy")
    assert pixels.stat().st_blocks * 512 >= found.images.nbytes


def test_another_decoder_or_user_has_other_files(index, tmp_path, monkeypatch):
    decoded(index, tmp_path / "cache")
    monkeypatch.setattr(arrays_module, "DECODED_BY", "Pillow 99")
    decoded(index, tmp_path / "cache")
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ResourceError, match=r"writable by user 12345, got .*belongs to user"):
        decoded(index, tmp_path / "cache")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_two_users_share_a_folder_that_neither_declared_for_the_other():
    shared = Path(tempfile.mkdtemp(prefix="raygrad-users-"))
    shared.chmod(0o755)
    cache = shared / "images"
    try:
        own = user_folder(str(cache))

        def nobody():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            other = user_folder(str(cache))
            (other / "mine").touch()
            try:
                (own / "yours").touch()
            except PermissionError:
                os._exit(0)
            os._exit(1)

        assert in_a_process(nobody) == 0
        assert {path.name for path in cache.iterdir()} == {"user-0", "user-65534"}
    finally:
        shutil.rmtree(shared)


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(tmp_path):
    indexes = []
    for name in "abc":
        members = [m for n in range(4) for m in example(f"{name}{n}", 0, "jpg", jpeg(n, (8, 8)))]
        indexes.append(build_index([put(tmp_path, f"{name}.tar", members)], [], val_fraction=0.0))
    folder, most = tmp_path / "cache", 2 * 4 * 3 * 64 + 300  # two, and the files' headers
    a, b, c = indexes
    decoded(a, folder, most_bytes=most)
    first = next(tmp_path.rglob("*.npy"))
    os.utime(first.with_suffix(".arrow"), (0, 0))
    os.utime(first, (0, 0))
    decoded(b, folder, most_bytes=most)
    with pytest.raises(ResourceError, match="nothing there that is not in use"):
        decoded(c, folder, most_bytes=most)
    assert first.exists(), "this process maps it"
    for lock in decoded_cache._used.values():
        lock.close()
    decoded_cache._used.clear()
    decoded(c, folder, most_bytes=most)
    assert not first.exists()
    assert len(list(tmp_path.rglob("*.npy"))) == 2


def test_statistics_of_counted_bytes_are_those_of_all_pixels(index, tmp_path):
    """Also of planes with an odd number of pixels, and without those of rejects."""
    found = decoded(index, tmp_path / "cache")
    assert counted_statistics(torch.from_numpy(found.counts)) == channel_statistics(
        torch.from_numpy(np.array(found.images))
    )
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 5, 7)).astype(np.uint8)
    rows, brute = [0, 2, 3, 8], np.zeros((3, 256), np.int64)
    for row in rows:
        for channel in range(3):
            for value in images[row, channel].ravel():
                brute[channel, value] += 1
    np.testing.assert_array_equal(arrays_module.byte_counts(images, rows, 3), brute)


def test_a_process_killed_after_its_last_shard_leaves_no_image_at_anothers_label(index, tmp_path):
    """All shards are kept by then, and nothing is decoded that would show the pixels."""

    def killed():
        decoded_cache.CacheEntry.is_closing_up = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        decoded(index, tmp_path / "cache")

    assert in_a_process(killed) == -signal.SIGKILL
    equal(decoded(index, tmp_path / "cache"), load_arrays(index, "train", channels=3))


def test_shards_whose_pixels_were_cut_under_a_killed_decode_are_decoded_again(index, tmp_path):
    def killed():
        decoded_cache.CacheEntry.is_closing_up = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        decoded(index, tmp_path / "cache")

    assert in_a_process(killed) == -signal.SIGKILL
    (pixels,) = tmp_path.rglob("*.npy")
    os.truncate(pixels, pixels.stat().st_size // 2)
    equal(decoded(index, tmp_path / "cache"), load_arrays(index, "train", channels=3))


def test_a_data_set_of_two_sizes_is_refused_again_when_it_is_decoded_again(tmp_path):
    """Of the shards that were kept no image is left blank for those of another size."""
    sizes = ((8, 8), (8, 8), (12, 12))
    urls = [
        put(tmp_path, f"t-{at}.tar", example(f"k{at}", 0, "png", png(at, size)))
        for at, size in enumerate(sizes)
    ]
    index = build_index(urls, [], val_fraction=0.0)
    for _ in range(3):
        with pytest.raises(DataError, match="must have one size"):
            decoded(index, tmp_path / "cache")
