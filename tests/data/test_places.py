"""What a user names, a folder or files, is shards or is to be written as shards; one line each."""

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
    assert f"2 folders without {what} are left out, such as cat" in found


def test_folders_beside_the_splits_are_left_out_and_said(tmp_path):
    for name in ("train/cat/0.jpg", "train/dog/0.jpg", "test/cat/1.jpg", "unlabeled/0.jpg"):
        put(tmp_path, name, jpeg())
    source = at(str(tmp_path)).source
    assert source.notes == ("folders that are no split are left out: unlabeled",)


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
