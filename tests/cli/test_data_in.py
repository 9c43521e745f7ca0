"""Data as people have it, through the command: what is used, what is said, how it ends.

Shards are read and written in this process: what is under test does not depend on Ray.
"""

import gzip
import json
import re

import pyarrow.parquet as pq
import pytest

from raygrad.cli.command import main
from raygrad.config import DataConfig, StudyConfig
from raygrad.errors import ConfigError
from raygrad.pipeline import preparing
from tests.data import test_imagenet, test_tables
from tests.data.making import examples, jpeg, put, tar

KEYS = [f"{n:03d}" for n in range(30)]
NAMES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparing, "ensure_ray", lambda: None)
    monkeypatch.setattr(preparing, "wait_for", lambda *needed: None)
    monkeypatch.setattr(preparing.parallel, "ray_map", lambda do, items, **_: map(do, items))
    return tmp_path


def facts(run="run"):
    with open(f"{run}/data/dataset.json") as stream:
        return json.load(stream)


def rows(table="index", run="run"):
    return pq.read_table(f"{run}/data/{table}.parquet").to_pylist()


def splits(run="run"):
    found = [row["split"] for row in rows(run=run)]
    return {name: found.count(name) for name in ("train", "val", "test") if name in found}


def photos(folder, splits=("train", "test"), count=10):
    for split in splits:
        for name in ("cat", "dog"):
            for at in range(count):
                put(folder, f"{split}/{name}/{at}.jpg".lstrip("/"), jpeg(at))


def named(extension):
    return [
        m
        for n, key in enumerate(KEYS)
        for m in ((f"{key}.jpg", jpeg(n)), (f"{key}.{extension}", NAMES[n % 3].encode()))
    ]


def test_no_shards_are_a_usage_error_and_not_the_digits(here, capsys):
    for given in ([], [""], ["", " "]):
        assert main(["index", *given, "--run", "run"]) == 2
        assert "shards must be named" in capsys.readouterr().err
    assert main(["index", "--run", "run", "--test-tars", "a.tar"]) == 2
    assert not (here / "run").exists()


def test_class_names_in_any_member_are_classes(here):
    for extension in ("cls", "txt", "label"):
        put(here, f"{extension}.tar", named(extension))
        given = [] if extension == "cls" else ["--labels", extension]
        assert main(["index", f"{extension}.tar", "--run", extension, *given]) == 0
        assert facts(extension)["classes"] == list(NAMES)
        assert len(rows(run=extension)) == 30


def test_labels_that_are_not_found_say_where_they_could_be(here, capsys):
    put(here, "a.tar", named("txt"))
    assert main(["index", "a.tar", "--run", "run"]) == 1
    assert "--labels txt" in capsys.readouterr().err


def test_keys_counted_anew_in_each_split_are_all_used(here, capsys):
    for split in ("train", "test"):
        put(here, f"{split}/0.tar", examples(KEYS))
    assert main(["index", "train/0.tar", "--test-tars", "test/0.tar", "--run", "run"]) == 0
    assert splits()["test"] == 30
    assert sum(splits().values()) == 60


def test_two_shards_of_one_folder_and_file_name_are_told_apart(here):
    for part in (1, 2):
        put(here, f"part{part}/train/00000.tar", examples([f"{part}{key}" for key in KEYS]))
    tars = [f"part{part}/train/00000.tar" for part in (1, 2)]
    assert main(["index", *tars, "--run", "run"]) == 0
    assert {row["shard"] for row in rows()} == {"part1-train-00000", "part2-train-00000"}


def test_numbers_from_one_are_said_and_numbered_anew(here, caplog):
    put(
        here,
        "a.tar",
        [
            m
            for n, k in enumerate(KEYS)
            for m in (examples([k])[0], (f"{k}.cls", b"%d" % (1 + n % 3)))
        ],
    )
    assert main(["index", "a.tar", "--run", "run"]) == 0
    assert "1 of 4 classes have no training example: 0." in caplog.text
    assert main(["index", "a.tar", "--run", "anew", "--renumber"]) == 0
    assert facts("anew")["classes"] == ["1", "2", "3"]


def test_an_index_takes_the_size_and_the_channels_of_photographs(here):
    put(here, "a.tar", examples(KEYS))
    given = ["--image-size", "16", "--channels", "1", "--split-seed", "3"]
    assert main(["index", "a.tar", "--run", "run", *given]) == 0
    assert (facts()["image_size"], facts()["channels"]) == (16, 1)


def test_a_class_folder_is_prepared_by_naming_it(here, caplog):
    photos(here / "photos", splits=("",), count=30)
    put(here, "photos/cat/._0.jpg", b"\0\5\x16\7")
    put(here, "photos/.ipynb_checkpoints/x.jpg", jpeg())
    for command in (
        ["prepare", "photos"],
        ["prepare", "image-folder", "photos"],
        ["prepare", "image-folder", "--data-dir", "photos"],
        ["index", "photos"],
    ):
        run = f"run-{'-'.join(command)}"
        assert main([*command, "--run", run]) == 0
        assert facts(run)["classes"] == ["cat", "dog"]
        found = splits(run)
        assert sum(found.values()) == 60
        assert 0 < found["test"] < 30
        assert "hidden files and folders left out" in caplog.text
        caplog.clear()


def test_one_odd_file_never_stops_a_folder_and_stands_in_the_rejects(here):
    photos(here / "data")
    put(here, "data/train/cat/a.jfif", jpeg(1))
    put(here, "data/train/cat/new.webp", b"RIFF\0\0\0\0WEBP")
    put(here, "data/train/cat/x.heic", b"\0\0\0\x18ftypheic" + bytes(99))
    put(here, "data/train/dog/notes.txt", b"notes")
    assert main(["prepare", "image-folder", "data", "--run", "run"]) == 0
    assert len(rows()) == 42
    assert {row["key"]: row["reason"] for row in rows("rejects")} == {
        "train/cat/x.heic": "no image that can be read: a HEIC image",
        "train/dog/notes.txt": "no image that can be read: a text file",
    }


def test_many_odd_files_stop_a_folder_and_say_what_they_are(here, capsys):
    photos(here / "data")
    for at in range(3):
        put(here, f"data/train/cat/{at}.heic", b"\0\0\0\x18ftypheic" + bytes(99))
        put(here, f"data/train/dog/{90 + at}.heic", b"\0\0\0\x18ftypheic" + bytes(99))
    assert main(["prepare", "image-folder", "data", "--run", "run"]) == 1
    assert "a HEIC image" in capsys.readouterr().err
    given = ["--max-reject-share", "0.2"]
    assert main(["prepare", "image-folder", "data", "--run", "more", *given]) == 0


def test_what_is_written_without_a_run_is_held_to_the_same_share_and_listed(here, capsys):
    photos(here / "data", splits=("train",), count=3)
    for at in range(18):
        put(here, f"data/train/cat/{at}x.heic", b"\0\0\0\x18ftypheic" + bytes(99))
    write = ["prepare", "image-folder", "data", "--out", "out", "--test-fraction", "0"]
    assert main([*write, "--strict", "--max-reject-share", "0"]) == 1
    assert "got 18 against 6 usable" in capsys.readouterr().err
    assert not (here / "out").exists()
    assert main([*write, "--max-reject-share", "0.8"]) == 0
    listed = pq.read_table("out/rejects.parquet").to_pylist()
    assert [row["reason"] for row in listed] == ["no image that can be read: a HEIC image"] * 18
    assert main(["index", "out", "--run", "run"]) == 0
    assert len(rows()) == 6


def test_a_few_examples_of_a_folder_do_not_hide_what_the_folder_cannot_give(here, capsys, caplog):
    """The share is of the folder: of the few that are asked for it would refuse one odd file."""
    photos(here / "data")
    for at in range(3):
        put(here, f"data/train/cat/{at}x.heic", b"\0\0\0\x18ftypheic" + bytes(99))
    few = ["prepare", "image-folder", "data", "--max-examples", "8"]
    assert main([*few, "--run", "run"]) == 1
    assert "got 3 against 40 usable" in capsys.readouterr().err
    assert main([*few, "--run", "more", "--max-reject-share", "0.08"]) == 0
    assert len(rows("rejects", run="more")) == 3
    assert "10 examples, 3 rejects" in caplog.text


def test_kaggles_imagenet_is_prepared_from_its_own_folder(here, caplog):
    top = here / "kaggle/ILSVRC/Data/CLS-LOC"
    for wnid in test_imagenet.WNIDS:
        put(top, f"train/{wnid}/{wnid}_0.JPEG", jpeg())
    test_imagenet.kaggle(top)
    (top / "LOC_val_solution.csv").rename(here / "kaggle/LOC_val_solution.csv")
    for command in (["prepare", "imagenet", "kaggle"], ["prepare", "kaggle"]):
        run = "-".join(command)
        assert main([*command, "--run", run]) == 0
        found = {r["key"]: facts(run)["classes"][r["label"]] for r in rows(run=run)}
        assert {k: v for k, v in found.items() if "val" in k} == test_imagenet.WANTED
        assert "LOC_val_solution.csv" in caplog.text


@pytest.mark.parametrize("command", [["prepare"], ["index"]])
def test_a_hugging_face_folder_is_prepared_by_naming_it(here, command):
    for number, split in enumerate(("train", "validation")):
        content = test_tables.table(30 * number, 30, test_tables.huggingface())
        test_tables.put(here / "hub", f"data/{split}-00000-of-00001.parquet", content)
    assert main([*command, "hub", "--run", "run"]) == 0
    assert facts()["classes"] == test_tables.NAMES
    assert splits()["test"] == 30
    assert rows()[0]["key"].endswith("-00000000")


def test_a_parquet_file_is_prepared_by_naming_it(here):
    test_tables.put(here, "a.parquet", test_tables.table(0, 60))
    assert main(["prepare", "a.parquet", "--run", "run"]) == 0
    assert sum(splits().values()) == 60
    assert splits()["test"] > 0


def test_clip_benchmarks_folder_is_indexed_in_one_line(here):
    for split in ("train", "test"):
        put(here / "wds", f"{split}/0.tar", examples([f"s{key}" for key in KEYS]))
        put(here / "wds", f"{split}/nshards.txt", b"1\n")
    put(here / "wds", "classnames.txt", b"cat\ndog\neel\n")
    assert main(["index", "wds", "--run", "run"]) == 0
    assert facts()["classes"] == list(NAMES)
    assert splits()["test"] == 30


def test_img2datasets_folder_is_indexed_with_its_labels(here):
    members = [
        m
        for n, key in enumerate(KEYS)
        for m in (
            (f"{key}.jpg", jpeg(n)),
            (f"{key}.txt", b"a caption"),
            (f"{key}.json", json.dumps({"key": key, "class": NAMES[n % 3]}).encode()),
        )
    ]
    put(here / "out", "00000.tar", members)
    put(here / "out", "00000_stats.json", b"{}")
    put(here / "out", "00000.parquet", b"PAR1")
    assert main(["index", "out", "--labels", "json:class", "--run", "run"]) == 0
    assert facts()["classes"] == list(NAMES)


def test_class_tars_are_indexed_by_their_names(here):
    for wnid, content in test_imagenet.class_tars(10).items():
        put(here, f"train/{wnid}.tar", content)
    assert main(["index", "train/n*.tar", "--labels", "shard", "--run", "run"]) == 0
    assert facts()["classes"] == list(test_imagenet.WNIDS)
    assert len(rows()) == 30


def test_a_compressed_tar_grows_like_any_other(here):
    """Indexed again beside a new shard: what is unpacked is known by the name it was given."""
    put(here, "a.tar.gz", gzip.compress(tar(examples(KEYS))))
    assert main(["index", "a.tar.gz", "--run", "run"]) == 0
    assert len(rows()) == 30
    assert pq.read_table("run/data/shards.parquet")["source"].to_pylist() == [
        str(here / "a.tar.gz")
    ]


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["index", "none.tar"], 2, r"no(?:ne|thing) at .*none.tar"),
        (["index", "a-{0..1}.tar"], 2, r"nothing at .*a-1\.tar"),
        (["index", "empty"], 2, "folder of class folders"),
        (["index", "https://127.0.0.1:1/x-*.tar"], 2, "without"),
        (["index", "pipe:curl -s -L https://host/a.tar"], 2, "must be local or"),
        (["index", "ftp://host/a.tar"], 2, "must be local or"),
        (["index", "file:///none/a.tar"], 2, r"no(?:ne|thing) at /none/a.tar"),
        (["index", "a-0.tar", "--labels", "jpg"], 2, "labels must be"),
        (["index", "a-0.tar", "--labels", "none.csv"], 2, "nothing at none.csv"),
        (["index", "lfs.tar"], 1, "git-lfs pointer"),
        (["index", "page.tar"], 1, "an HTML page"),
        (["index", "link.tar"], 2, r"no(?:ne|thing) at .*link.tar"),
        (["prepare", "image-folder", "none"], 2, "must be there"),
        (["prepare", "image-folder"], 2, "--data-dir"),
        (["prepare", "imagenet", "empty"], 2, "no train in"),
        (["prepare", "a.parquet"], 2, "an HTML page"),
        (["prepare", "nothing.parquet"], 2, r"no(?:ne|thing) at"),
    ],
)
def test_the_commonest_slips_are_one_line_with_the_remedy(here, capsys, args, status, says):
    put(here, "a-0.tar", examples(KEYS))
    put(here, "lfs.tar", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    put(here, "page.tar", b"<!doctype html><html>restricted</html>")
    put(here, "a.parquet", b"<!doctype html><html>restricted</html>")
    (here / "link.tar").symlink_to(here / "gone")
    (here / "empty").mkdir()
    assert main([*args, "--run", "run"]) == status
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert "Traceback" not in error
    assert [line for line in error.splitlines() if line.startswith("raygrad: ")]


def test_a_folder_that_has_grown_is_told_and_scored_again_as_a_whole(here, capsys):
    """Nothing that was added to a folder is passed over in silence."""
    photos(here / "photos", splits=("",), count=20)
    data = DataConfig(tars=("photos",), val_fraction=0.0, test_fraction=0.0)
    config = StudyConfig("run", data=data)
    preparing.index_shards(config)
    assert splits() == {"train": 40}
    preparing.index_shards(config)  # complete, and skipped
    put(here, "photos/cat/new.jpg", jpeg())
    with pytest.raises(ConfigError, match=r"1 new \(such as .*cat/new\.jpg\)"):
        preparing.index_shards(config)
