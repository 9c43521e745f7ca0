"""Listings of files: what tells that they are others, and what does not."""

import dataclasses
import json

import pytest

from raygrad.data.fingerprint import (
    CONTENT_BYTES,
    difference,
    fingerprint,
    named_fingerprint,
    source_fingerprint,
)
from raygrad.storage import files
from tests.pipeline.making_runs import class_folders

HIDDEN = (".DS_Store", "train/.ipynb_checkpoints/x.jpg", "train/cat/Thumbs.db")


def test_hidden_files_that_an_older_raygrad_listed_are_no_change(tmp_path):
    folder = class_folders(tmp_path / "a", 0, 3)
    now = source_fingerprint("image-folder", str(folder))
    listed = now.stored()
    listed["files"] = listed["files"] | dict.fromkeys(HIDDEN, (1, "2"))
    listed |= {"listing": "another", "content": "another"}
    assert difference(listed, now) is None
    listed["files"]["train/cat/gone.jpg"] = (1, "2")
    assert difference(listed, now) == "1 removed (such as train/cat/gone.jpg)"


@pytest.mark.parametrize("name", ["ds", "ds.v1"])
def test_a_folder_of_a_store_is_listed_as_deep_as_it_is_read(name, s3_url):
    folder, wanted = f"{s3_url}/{name}", []
    for place in ("train/0.tar", "test/a/0.tar", "README.md"):
        files.write_bytes(f"{folder}/{place}", b"x")
        wanted += [f"{folder}/{place}"] if place.endswith("tar") else []
    before = named_fingerprint([folder])
    assert sorted(before.states) == sorted(wanted)
    files.write_bytes(wanted[0], b"y")
    assert difference(before.stored(), named_fingerprint([folder])).startswith("1 changed")


def test_large_and_many_files_are_told_apart_by_their_listing_alone(tmp_path, monkeypatch):
    one = tmp_path / "one"
    one.write_bytes(b"x")
    listed = fingerprint({"one": str(one)})
    assert listed.stored()["content"] is not None
    large = dataclasses.replace(listed, states={"one": (CONTENT_BYTES + 1, "1")})
    assert large.stored()["content"] is None
    stored = json.loads(json.dumps({**large.stored(), "files": None}))
    assert difference(stored, large) is None
    assert "1 files of" in difference(stored, dataclasses.replace(large, states={}))


def test_what_else_is_in_the_folder_of_mnist_is_not_its_own(tmp_path):
    for name in ("MNIST/raw/a", "other/b"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    assert list(source_fingerprint("mnist", str(tmp_path)).states) == ["MNIST/raw/a"]


def test_shards_on_s3_are_told_apart_by_etag(s3_url, tmp_path):
    url = f"{s3_url}/a.tar"
    files.write_bytes(url, b"1234")
    first = fingerprint({url: url}).stored()
    assert difference(first, fingerprint({url: url})) is None
    files.write_bytes(url, b"1235")
    assert "1 changed" in difference(first, fingerprint({url: url}))
    assert fingerprint({"x": f"{s3_url}/none.tar"}).states == {}
