"""Export: a subset becomes shards of its own, byte for byte the same wherever they go."""

import json
import shutil
import tarfile

import pytest

from raygrad.data import export
from raygrad.data.export import export_subset
from raygrad.data.index import build_index
from raygrad.data.reading import read_rows, rows_of_keys
from raygrad.errors import ConfigError, DataError
from raygrad.storage import files
from tests.data.making import example, jpeg, png, put


@pytest.fixture
def index(tmp_path):
    urls = []
    for shard in range(3):
        members = []
        for at in range(20):
            if at % 2:
                members += example(f"d/k{shard}{at:02d}", at % 4, "png", png(at))
            else:
                members += example(f"d/k{shard}{at:02d}", at % 4, "JPEG", jpeg(20 * shard + at))
        urls.append(put(tmp_path / "shards", f"train-{shard}.tar", members))
    return build_index(urls, [], val_fraction=0.0)


@pytest.fixture
def keys(index):
    return index.examples["key"].to_pylist()[5::3]


def contents(urls):
    return [files.read_bytes(url) for url in urls]


def test_the_new_shards_hold_the_subset_and_nothing_else(index, keys, tmp_path):
    urls = export_subset(index, keys, str(tmp_path / "out"), shard_bytes=10_000)
    assert len(urls) > 2
    again = build_index(urls, [], val_fraction=0.0)
    assert again.rejects.num_rows == 0
    assert again.examples["key"].to_pylist() == keys
    before = {e.key: (e.label, e.image) for e in read_rows(index, rows_of_keys(index, keys))}
    after = {e.key: (e.label, e.image) for e in read_rows(again, again.examples)}
    assert before == after


def test_extensions_say_what_the_images_are(index, keys, tmp_path):
    with tarfile.open(export_subset(index, keys, str(tmp_path / "out"))[0]) as tar:
        names = tar.getnames()
    assert {name.rsplit(".")[-1] for name in names} == {"jpg", "png", "cls"}
    assert all(("jpg" in n) == (int(n[-6:-4]) % 2 == 0) for n in names if "cls" not in n)


def test_the_bytes_depend_on_the_subset_alone(index, keys, tmp_path, s3_url):
    """Not on the order of the keys, nor on disk or S3, nor on a parallel map."""
    from concurrent.futures import ThreadPoolExecutor

    first = export_subset(index, keys, str(tmp_path / "a"), shard_bytes=10_000)
    with ThreadPoolExecutor(2) as pool:
        second = export_subset(index, keys[::-1], s3_url, shard_bytes=10_000, map_fn=pool.map)
    assert contents(first) == contents(second)


def test_an_export_that_was_broken_off_goes_on(index, keys, tmp_path, monkeypatch):
    """What is written stays, what is missing is written, and the result is the same."""
    whole = export_subset(index, keys, str(tmp_path / "whole"), shard_bytes=10_000)
    real, written = export._write_part, []

    def dies_at_the_third(index, task):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(task[0])
        return real(index, task)

    out = str(tmp_path / "out")
    monkeypatch.setattr(export, "_write_part", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        export_subset(index, keys, out, shard_bytes=10_000)
    monkeypatch.setattr(export, "_write_part", real)
    reads = []
    real_read = export.read_rows
    monkeypatch.setattr(export, "read_rows", lambda i, r: reads.append(r) or real_read(i, r))
    assert contents(export_subset(index, keys, out, shard_bytes=10_000)) == contents(whole)
    assert len(reads) == len(whole) - 2
    reads.clear()
    export_subset(index, keys, out, shard_bytes=10_000)
    assert not reads
    (tmp_path / "out" / "subset-000001.tar").unlink()  # somebody removed what was complete
    assert contents(export_subset(index, keys, out, shard_bytes=10_000)) == contents(whole)
    assert len(reads) == 1


def test_tars_of_another_export_are_not_taken_for_its_own(index, keys, tmp_path):
    urls = export_subset(index, keys, str(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    shutil.copy(urls[0], tmp_path / "b")
    with pytest.raises(ConfigError, match=r"one export, got subset-000000\.tar of another"):
        export_subset(index, keys[:2], str(tmp_path / "b"))


def test_weights_of_a_draw_travel_along(index, keys, tmp_path):
    """An example with a weight has it in its .json; others and labels stay as they are."""
    weights = {key: 1.5 + at for at, key in enumerate(keys[::2])}
    urls = export_subset(index, keys, str(tmp_path / "out"), weights=weights)
    found = {}
    with tarfile.open(urls[0]) as tar:
        for member in tar:
            if member.name.endswith(".json"):
                found[member.name[:-5]] = json.load(tar.extractfile(member))["weight"]
    assert found == weights
    again = build_index(urls, [], val_fraction=0.0)
    assert again.examples["key"].to_pylist() == keys
    with pytest.raises(ConfigError, match="must hold one export"):
        export_subset(index, keys, str(tmp_path / "out"))


def test_what_cannot_be_exported_is_said(index, keys, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match="at least one key"):
        export_subset(index, [], out)
    with pytest.raises(ConfigError, match="each once"):
        export_subset(index, [*keys, keys[0]], out)
    with pytest.raises(DataError, match="'other'"):
        export_subset(index, [*keys, "other"], out)
    export_subset(index, keys, out)
    with pytest.raises(ConfigError, match="must hold one export"):
        export_subset(index, keys[:-1], out)
