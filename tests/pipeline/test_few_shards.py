"""Small shards of this machine are scanned here; what is large or elsewhere goes to processes."""

import os

import pytest

from raygrad.engine import parallel
from raygrad.pipeline import preparing


@pytest.fixture
def shards(tmp_path):
    """Ten files of a hundred bytes."""
    for at in range(10):
        (tmp_path / f"{at}.tar").write_bytes(bytes(100))
    return [str(tmp_path / f"{at}.tar") for at in range(10)]


def test_small_local_shards_are_scanned_here_however_many(shards):
    assert preparing._few((shards[:8], shards[8:])) == 10


@pytest.mark.parametrize("odd", ["s3://bucket/a.tar", "/nowhere/a.tar"])
def test_one_that_is_not_a_local_file_sends_all_to_processes(shards, odd):
    assert preparing._few((shards, [odd])) == parallel.FEW


def test_large_ones_go_to_processes_and_the_look_ends_with_the_first_that_settles_it(
    shards, tmp_path, monkeypatch
):
    large = tmp_path / "large.tar"
    with large.open("wb") as file:
        file.truncate(preparing._SMALL_BYTES + 1)  # sparse
    assert preparing._few((shards, [str(large)])) == parallel.FEW
    asked = []
    size = os.path.getsize
    monkeypatch.setattr(os.path, "getsize", lambda path: asked.append(path) or size(path))
    assert preparing._few(([str(large), *shards], [])) == parallel.FEW
    assert asked == [str(large)]


@pytest.mark.parametrize(
    ("num", "at_once"), [(1, 1), (1281, 1), (2000, 2), (10_000, 10), (100_000, 32), (10**6, 32)]
)
def test_thousands_of_shards_are_scanned_several_a_task(num, at_once):
    assert preparing._at_once((["s"] * (num - 1), ["t"])) == at_once
