"""What a user names, a folder or files, is shards or is to be written as shards; one line each."""

import pyarrow as pa
import pytest

from raygrad.data.places import TableOptions, resolve
from raygrad.data.sources import HeldOut
from raygrad.errors import ConfigError
from raygrad.storage import s3
from tests.data import test_tables
from tests.data.making import examples, jpeg, put, tar


def at(*names, test=(), fraction=0.2, **options):
    return resolve(names, list(test), held_out=HeldOut(fraction), options=TableOptions(**options))


def names(urls):
    return ["/".join(url.split("/")[-2:]) for url in urls]


SHARDS = {
    "imagenet-1k-wds": (
        ["imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"],
        2,
    ),
    "clip-benchmark": (["train/0.tar", "train/1.tar", "test/0.tar"], 2),
    "img2dataset": (["00000.tar", "00001.tar"], 2),
    "compressed": (["train-0.tar.gz", "train-1.tgz", "test-0.tar.zst"], 2),
    "class tars beside": (["train/part-0/x.tar", "val/part-0/y.tar"], 1),
}


@pytest.mark.parametrize("layout", SHARDS)
def test_a_folder_of_shards_gives_its_splits(tmp_path, layout):
    content, num_train = SHARDS[layout]
    for name in content:
        put(tmp_path, name, examples(["a"]))
    if layout == "img2dataset":
        for name in ("00000_stats.json", "00000.parquet"):
            put(tmp_path, name, b"{}")
    found = at(str(tmp_path))
    assert found.source is None
    assert len(found.train_urls) == num_train
    assert sorted([*found.train_urls, *found.test_urls]) == sorted(
        str(tmp_path / name) for name in content
    )


def test_no_shard_of_many_folders_or_deep_ones_is_missed(tmp_path):
    for at_ in range(70):
        put(tmp_path, f"part-{at_:02d}/0.tar", examples(["a"]))
    put(tmp_path, "part-00/a/b/c/d/1.tar", examples(["a"]))
    put(tmp_path, "part-00/.trash/2.tar", examples(["a"]))
    (tmp_path / "part-01" / "up").symlink_to(tmp_path)  # must not be walked round and round
    found = names(at(str(tmp_path)).train_urls)
    assert len(found) == 71
    assert {"part-69/0.tar", "d/1.tar"} <= set(found)


@pytest.mark.parametrize("what", ["shards", "tables"])
def test_folders_of_images_beside_shards_or_tables_are_left_out_and_said(tmp_path, what):
    put(tmp_path, "cat/0.jpg", jpeg())
    put(tmp_path, "dog/0.jpg", jpeg())
    put(tmp_path, ".git/x", b"")
    if what == "shards":
        put(tmp_path, "all.tar", examples(["a"]))
        found = at(str(tmp_path)).notes
    else:
        test_tables.put(tmp_path, "all.parquet", test_tables.table(0))
        found = at(str(tmp_path), fraction=0.0).source.notes
    assert f"beside the {what} 2 files and folders are left out, such as cat" in found


def test_what_could_be_data_beside_shards_is_said_wherever_it_lies(tmp_path):
    for name in ("data/shards/00.tar", "data/shards/01.tar"):
        put(tmp_path, name, examples(["a"]))
    for name in ("00.parquet", "00_stats.json", "README.md"):  # img2dataset's
        put(tmp_path, f"data/shards/{name}", b"{}")
    assert at(str(tmp_path)).notes == ()
    beside = ["data/photos/cat/1.png", "data/shards/02.tar.part", "extra.parquet", "x.jpg"]
    for name in beside:
        put(tmp_path, name, b"x")
    (said,) = at(str(tmp_path)).notes
    assert said == "beside the shards 4 files and folders are left out, such as data/photos"


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("seg_train", "seg_test")])
def test_splits_may_have_longer_names(tmp_path, names):
    for split in names:
        for name in ("cat", "dog"):
            put(tmp_path, f"{split}/{name}/0.jpg", jpeg())
    source = at(str(tmp_path)).source
    assert source.classes == ("cat", "dog")
    assert [len(source.train), len(source.test)] == [2, 2]
    assert source.notes == (f"{names[0]} is the training split",)


@pytest.mark.parametrize("names", [("val", "test"), ("train_a", "train_b")])
def test_splits_without_one_to_train_on_are_no_classes(tmp_path, names):
    for split in names:
        put(tmp_path, f"{split}/cat/0.jpg", jpeg())
    with pytest.raises(ConfigError, match="one folder of splits must be of training"):
        at(str(tmp_path))
    for split in names:  # images right in them: classes, whatever they are called
        (tmp_path / split / "cat" / "0.jpg").rename(tmp_path / split / "0.jpg")
        (tmp_path / split / "cat").rmdir()
    assert at(str(tmp_path)).source.classes == tuple(sorted(names))


def test_classes_that_hold_the_same_folders_are_said_to_be_classes(tmp_path):
    for split in ("one", "two"):
        for name in ("cat", "dog"):
            for number in range(4):
                put(tmp_path, f"{split}/{name}/{number}.jpg", jpeg())
    source = at(str(tmp_path)).source
    assert source.classes == ("one", "two")
    assert "the classes are one, two, each of which holds the folders cat, dog" in source.notes[0]


def test_shards_of_a_named_folder_go_by_its_words(tmp_path):
    for name in ("wds/train/000.tar", "wds/val/000.tar", "te/0.tar"):
        put(tmp_path, name, examples(["a"]))
    found = at(str(tmp_path / "wds"), test=[str(tmp_path / "te")])
    assert len(found.train_urls) == 2
    assert "1 of 2 training shards are called by another split" in found.notes[0]


def test_tables_that_datasets_kept_of_a_map_are_no_data(tmp_path):
    for name in ("data-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"):
        (tmp_path / "saved").mkdir(exist_ok=True)
        rows = test_tables.table(0, 20)
        with pa.ipc.new_stream(str(tmp_path / "saved" / name), rows.schema) as out:
            out.write_table(rows)
    source = at(str(tmp_path / "saved"), fraction=0.0).source
    assert len(source.train) == 20
    assert "such as cache-0123456789abcdef.arrow" in source.notes[0]


def test_folders_beside_the_splits_are_left_out_and_said(tmp_path):
    for name in ("train/cat/0.jpg", "train/dog/0.jpg", "test/cat/1.jpg", "unlabeled/0.jpg"):
        put(tmp_path, name, jpeg())
    for name in ("val/2.jpg", "more.tar", "README.md"):
        put(tmp_path, name, b"x")
    assert at(str(tmp_path)).source.notes == (
        "folders that are no split are left out: unlabeled",
        "1 files beside the splits are left out, such as more.tar",
        "val holds no class folders: it is left out",
    )


def test_clip_benchmarks_class_names_are_kept(tmp_path):
    put(tmp_path, "train/0.tar", examples(["s0000000", "s0000001", "s0000002"]))
    put(tmp_path, "classnames.txt", b"cat\ndog\neel\n")
    assert at(str(tmp_path)).classes == ("cat", "dog", "eel")


def test_validation_shards_beside_test_shards_are_left_out_and_said(tmp_path):
    for name in ("train-0.tar", "val-0.tar", "test-0.tar"):
        put(tmp_path, name, examples(["a"]))
    found = at(str(tmp_path))
    assert [url.rsplit("/", 1)[-1] for url in found.test_urls] == ["test-0.tar"]
    assert found.notes == ("test is the test split; 1 files of val are left out",)


def test_shards_by_name_stay_as_they_were_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a-0.tar", "a-1.tar", "t.tar"):
        put(tmp_path, name, examples(["a"]))
    found = at("a-{0..1}.tar", test=["t.tar"])
    assert found.train_urls == (str(tmp_path / "a-0.tar"), str(tmp_path / "a-1.tar"))
    assert found.test_urls == (str(tmp_path / "t.tar"),)
    put(tmp_path, "tests/t.tar", examples(["b"]))
    assert at("a-*.tar", test=["tests"]).test_urls == (str(tmp_path / "tests/t.tar"),)


def test_class_folders_are_written_whatever_lies_beside_them(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            put(tmp_path, f"{split}/{name}/0.jpg", jpeg())
    put(tmp_path, "archive.tar", tar([("train/cat/0.jpg", jpeg())]))
    found = at(str(tmp_path))
    assert found.source.classes == ("cat", "dog")
    assert (len(found.source.train), len(found.source.test)) == (2, 2)


def test_plain_class_folders_for_scoring_are_all_training_examples(tmp_path):
    for name in ("cat", "dog"):
        for number in range(30):
            put(tmp_path, f"{name}/{number}.jpg", jpeg())
    source = at(str(tmp_path), fraction=0.0).source
    assert (len(source.train), len(source.test)) == (60, 0)
    assert len(at(str(tmp_path)).source.test) > 0


HUB = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")


def test_a_folder_as_on_the_hub_gives_its_splits(tmp_path):
    for number, name in enumerate((*HUB, "data/test-00000-of-00001.parquet")):
        test_tables.put(
            tmp_path, name, test_tables.table(30 * number, 20, test_tables.huggingface())
        )
    put(tmp_path, "README.md", b"# A data set")
    source = at(str(tmp_path)).source
    assert source.classes == ("cat", "dog", "eel")
    assert (len(source.train), len(source.test)) == (40, 20)


def test_a_table_without_a_test_split_is_split_by_a_hash(tmp_path):
    url = test_tables.put(tmp_path, "a.parquet", test_tables.table(0, 100))
    source = at(url).source
    assert 5 < len(source.test) < 40
    assert len(source.train) + len(source.test) == 100
    assert any("chosen by a hash" in note for note in source.notes)
    assert len(at(url, fraction=0.0).source.train) == 100


def test_two_data_sets_in_a_folder_are_refused(tmp_path):
    for config in ("plain", "augmented"):
        test_tables.put(tmp_path, f"{config}/train/0.parquet", test_tables.table(0))
    with pytest.raises(ConfigError, match="one data set"):
        at(str(tmp_path))
    assert len(at(str(tmp_path / "plain"), fraction=0.0).source.train) == 20


@pytest.mark.parametrize(
    ("content", "given", "says"),
    [
        ([], ["."], "folder of class folders"),
        (["test-0.tar"], ["."], "must hold training files"),
        (["train-0.tar", "other.tar"], ["."], "must each be of one"),
        (["a/0.tar", "b.tar"], ["a", "b.tar"], "named alone"),
        (["00000/0.jpg", "00000_stats.json"], ["."], "img2dataset"),
        (["a.tar"], ["pipe:curl x"], "must be local or"),
        (["a.tar"], ["ftp://host/a.tar"], "must be local or"),
        (["a.tar"], [""], "must be named"),
        (["a.tar"], ["b-*.tar"], "must match a file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(tmp_path, monkeypatch, content, given, says):
    monkeypatch.chdir(tmp_path)
    for name in content:
        put(tmp_path, name, examples(["a"]))
    with pytest.raises(ConfigError, match=says) as caught:
        at(*given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "TGZ"])
def test_a_store_is_not_asked_about_each_of_many_named_shards(monkeypatch, ending):
    """Two questions a shard would take an hour before a hundred thousand are begun with."""

    def asked(url, *_):
        raise AssertionError(f"{url} was asked for")

    for one in ("is_object", "exists", "entries_in"):
        monkeypatch.setattr(s3, one, asked)
    found = at(f"s3://b/train-{{000..999}}.{ending}", test=[f"s3://b/test.{ending}"])
    assert (len(found.train_urls), len(found.test_urls)) == (1000, 1)
    with pytest.raises(AssertionError, match="s3://b/folder was asked for"):
        at("s3://b/folder")
