"""Folders as people have them: with splits or without, with what systems and browsers leave."""

import os

import numpy as np
import pytest

from raygrad.data.shards import write_shards
from raygrad.data.sources import SOURCES, HeldOut
from raygrad.errors import ConfigError
from tests.data.making import jpeg, png
from tests.data.test_more_members import encoded
from tests.data.test_sources import put

open_folder = SOURCES["image-folder"]


def keys(source):
    return sorted([*source.train.keys(), *source.test.keys()])


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten, train and test."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for at in range(10):
                put(tmp_path, f"{split}/{name}/{at}.jpg", jpeg(at))
    return tmp_path


LEFT_BEHIND = (
    "train/.ipynb_checkpoints/0-checkpoint.jpg", "train/cat/.ipynb_checkpoints/1.jpg",
    "train/cat/@eaDir/2.jpg/SYNOPHOTO_THUMB_XL.jpg", "train/__MACOSX/cat/._1.jpg",
    "train/cat/._1.jpg", "test/dog/._2.jpg", "test/.DS_Store", "train/dog/Thumbs.db",
)  # fmt: skip


def test_hidden_files_and_folders_are_no_examples_and_no_classes_and_are_counted(photos):
    before = open_folder(str(photos))
    for name in LEFT_BEHIND:
        put(photos, name, jpeg())
    source = open_folder(str(photos))
    assert source.classes == ("cat", "dog")
    assert keys(source) == keys(before)
    assert source.train.fingerprint() == before.train.fingerprint()
    assert source.rejects == ()
    assert [note for note in source.notes if note.startswith("8 hidden files and folders")]


def test_photographs_of_unknown_endings_are_told_by_their_bytes(photos, tmp_path):
    """Browsers' .jfif, no ending at all, a wrong one: used; what is none is a reject."""
    put(photos, "train/cat/a.jfif", jpeg(1))
    put(photos, "train/cat/b", png(2))
    put(photos, "train/cat/c.download", encoded("WEBP"))
    put(photos, "train/cat/d.heic", b"\0\0\0\x18ftypheic" + bytes(99))
    put(photos, "train/cat/notes.txt", b"taken in May")
    put(photos, "train/cat/0.xml", b"<?xml version='1.0'?><annotation/>")
    source = open_folder(str(photos))
    assert {"train/cat/a", "train/cat/b", "train/cat/c"} < set(source.train.keys())
    assert dict(source.rejects) == {
        "train/cat/d.heic": "no image that can be read: a HEIC image",
        "train/cat/notes.txt": "no image that can be read: a text file",
    }
    assert source.num_lost == 1
    assert any("1 files beside images of their name" in note for note in source.notes)
    assert {e.key: e.extension for e in source.train if e.key[10:] in "abc"} == {
        "train/cat/a": "jfif",
        "train/cat/b": "png",
        "train/cat/c": "webp",
    }


def test_every_file_is_used_or_rejected_or_counted(photos):
    """Used + rejected + hidden + companions is what the disk holds."""
    for at, name in enumerate((*LEFT_BEHIND, "train/cat/x.txt", "test/cat/1.json", "train/y.jpg")):
        put(photos, name, b"{}" if at % 2 else b"x")
    (photos / "train/dog/gone.jpg").symlink_to(photos / "nothing")
    os.mkfifo(photos / "train/dog/pipe.jpg")
    source = open_folder(str(photos))
    assert {reason for _, reason in source.rejects} == {
        "no image that can be read: a text file",
        "no class folder",
        "a link to nothing",
        "no regular file",
    }
    assert len(keys(source)) == 40
    assert source.num_lost == 3


def test_links_to_folders_are_followed_and_a_circle_ends(photos):
    (photos / "train/dog/more").symlink_to(photos / "train/cat")
    (photos / "train/dog/circle").symlink_to(photos / "train/dog")
    source = open_folder(str(photos))
    assert len(source.train) == 30


def test_class_folders_without_splits_are_split_by_a_hash_of_the_key(tmp_path):
    for name in ("cat", "dog"):
        for at in range(50):
            put(tmp_path, f"{name}/{at}.jpg", b"x%d" % at)
    source = open_folder(str(tmp_path))
    assert source.classes == ("cat", "dog")
    assert 5 <= len(source.test) <= 40
    assert len(keys(source)) == 100
    assert any("chosen by a hash" in note for note in source.notes)
    put(tmp_path, "dog/new.jpg", b"x")
    after = open_folder(str(tmp_path))
    assert set(source.test.keys()) == set(after.test.keys()) - {"dog/new"}
    other = open_folder(str(tmp_path), held_out=HeldOut(seed=1))
    assert set(other.test.keys()) != set(source.test.keys())
    whole = open_folder(str(tmp_path), held_out=HeldOut(0.0))
    assert (len(whole.train), len(whole.test)) == (101, 0)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        put(tmp_path, f"{name}/0.jpg", jpeg())
    assert open_folder(str(tmp_path)).classes == ("bus", "car", "train")


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "valid"), ("TRAIN", "Val")])
def test_splits_go_by_their_usual_names(tmp_path, names):
    for split in names:
        put(tmp_path, f"{split}/a/{split}.jpg", jpeg())
    source = open_folder(str(tmp_path))
    assert (len(source.train), len(source.test)) == (1, 1)


def test_a_test_folder_without_classes_gives_way_to_val(photos):
    (photos / "test").rename(photos / "val")
    put(photos, "test/1.jpg", jpeg())
    assert len(open_folder(str(photos)).test) == 20


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="must be there"):
        open_folder(str(tmp_path / "none"))


def test_a_split_of_no_example_is_no_shard(tmp_path):
    for at in range(4):
        put(tmp_path, f"in/cat/{at}.jpg", jpeg(at))
    source = open_folder(str(tmp_path / "in"), held_out=HeldOut(0.0))
    written = write_shards(source, "x", str(tmp_path / "out"), shard_bytes=10**6, seed=0)
    assert (len(written.train_urls), written.test_urls) == (1, ())


def test_the_bytes_of_a_cut_set_are_those_asked_for(photos):
    source = open_folder(str(photos))
    some = source.train.take(np.array([3, 0]))
    assert [e.image for e in some] == [jpeg(3), jpeg(0)]
