"""What changed under a complete run is noticed at the next start, and answered with choices."""

import dataclasses
import json
import os
import re
import shutil

import pytest

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.config import DataConfig, ScoreConfig, StudyConfig, SweepConfig, TrainConfig
from raygrad.data import fingerprint as data_fingerprint
from raygrad.data.index import read_index
from raygrad.errors import ConfigError
from raygrad.pipeline import noticing
from raygrad.pipeline.stages import completed, origin_facts
from raygrad.runs.layout import RunLayout
from raygrad.storage.manifest import digest, read_json, write_marker
from tests.data.making import example, jpeg, put
from tests.pipeline.making_runs import class_folders, without_ray


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


def shard(folder, number, label):
    members = []
    for at in range(4):
        members += example(f"s{number}-{at}", label(at), "jpg", jpeg(100 * number + at, (16, 16)))
    put(folder, f"t-{number:03d}.tar", members)


def prepare(run, redo=False, **data):
    config = StudyConfig(str(run), data=DataConfig(**data))
    with pipeline.bound(config, redo):
        pipeline.prepare(config)
    return read_index(RunLayout(config.run).data)


@pytest.fixture
def tars(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(3):
        shard(folder, number, lambda at: at % 2)
    return folder


def test_another_data_dir_is_refused_with_the_choices_and_done_again_on_request(tmp_path):
    a, b = class_folders(tmp_path / "a", 0, 3), class_folders(tmp_path / "b", 1, 5)
    own = {"source": "image-folder", "image_size": 16}
    assert prepare(tmp_path / "run", data_dir=str(a), **own).examples.num_rows == 12
    with pytest.raises(ConfigError, match=r"new.*--redo.*another --run") as refused:
        prepare(tmp_path / "run", data_dir=str(b), **own)
    assert len(str(refused.value).splitlines()) == 1
    assert pipeline.stored_config(str(tmp_path / "run")).data.data_dir == str(a)
    assert prepare(tmp_path / "run", redo=True, data_dir=str(b), **own).examples.num_rows == 20
    assert prepare(tmp_path / "run", data_dir=str(b), **own).examples.num_rows == 20


def test_a_folder_that_was_copied_or_is_gone_is_no_change(tmp_path):
    a = class_folders(tmp_path / "a", 0, 3)
    own = {"source": "image-folder", "image_size": 16}
    prepare(tmp_path / "run", data_dir=str(a), **own)
    shutil.copytree(a, tmp_path / "copy", copy_function=shutil.copyfile)
    prepare(tmp_path / "run", data_dir=str(tmp_path / "copy"), **own)
    shutil.rmtree(a)
    prepare(tmp_path / "run", data_dir=str(a), **own)
    (tmp_path / "copy/train/cat/0.jpg").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"changed \(such as"):
        prepare(tmp_path / "run", data_dir=str(tmp_path / "copy"), **own)


HIDDEN = (".DS_Store", "train/.ipynb_checkpoints/x.jpg", "train/cat/Thumbs.db")


@pytest.mark.parametrize("given", ["data_dir", "tars"])
def test_hidden_files_that_systems_leave_are_no_change(given, tmp_path):
    """A look at the folder in a file manager leaves some."""
    folder = class_folders(tmp_path / "a", 0, 3)
    own = {"data_dir": str(folder), "source": "image-folder"}
    own = own if given == "data_dir" else {"tars": (str(folder),)}
    prepare(tmp_path / "run", image_size=16, **own)
    for name in HIDDEN:
        put(folder, name, b"x")
    prepare(tmp_path / "run", image_size=16, **own)
    put(folder, "train/cat/new.jpg", jpeg(9, (16, 16)))
    with pytest.raises(ConfigError, match=r"1 new \(such as .*new\.jpg\)"):
        prepare(tmp_path / "run", image_size=16, **own)


def test_a_glob_over_more_shards_is_refused_with_the_choices(tars, tmp_path):
    glob = {"tars": (f"{tars}/t-*.tar",)}
    assert prepare(tmp_path / "run", **glob).examples.num_rows == 12
    shard(tars, 3, lambda at: at % 2)
    with pytest.raises(ConfigError, match=r"1 new .*t-003.*new shards alone .*--redo.*--run"):
        prepare(tmp_path / "run", **glob)
    for stage in (pipeline.train, pipeline.score, pipeline.sweep):
        config = pipeline.stored_config(str(tmp_path / "run"))
        with pytest.raises(ConfigError, match="1 new"):
            stage(config)
    config = pipeline.stored_config(str(tmp_path / "run"))
    pipeline.index_shards(config)
    assert read_index(RunLayout(config.run).data).examples.num_rows == 16
    assert prepare(tmp_path / "run", **glob).examples.num_rows == 16


@pytest.mark.parametrize("named", ["", "TARS/t-003.tar", "TARS/t-*.tar", "TARS/t-{000..003}.tar"])
def test_every_choice_that_is_offered_for_more_shards_is_there(named, tars, tmp_path, capsys):
    """Whether none of them is named, the new one, or all; the run's other settings hold."""
    run = str(tmp_path / "run")
    first = [str(tars / "t-*.tar"), "--run", run, "--val-fraction", "0.5"]
    assert cli.main(["index", *first]) == 0
    before = read_index(RunLayout(run).data).examples.to_pylist()
    shard(tars, 3, lambda at: at % 2)
    assert cli.main(["index", *first]) == 2
    offered = re.search(r"alone \(raygrad (.*?)\)", capsys.readouterr().err)[1]
    words = [named.replace("TARS", str(tars))] if named else []
    assert cli.main([*offered.split(), *words]) == 0
    assert "raygrad score" in capsys.readouterr().out
    after = read_index(RunLayout(run).data).examples.to_pylist()
    assert [row for row in after if row in before] == before
    assert len(after) == 16
    assert cli.main(["index", "--extend", "--run", run, "--labels", "txt"]) == 2
    assert "got labels 'txt' for 'cls'" in capsys.readouterr().err


def test_new_shards_alone_are_not_offered_where_it_cannot_be_done(tars, tmp_path):
    """Where others changed too, and where the files are a source's, which is written anew."""
    folders = class_folders(tmp_path / "new (such as x)", 0, 3)
    prepare(tmp_path / "a", source="image-folder", data_dir=str(folders), image_size=16)
    class_folders(folders, 1, 5)
    with pytest.raises(ConfigError, match="Do the stage again") as refused:
        prepare(tmp_path / "a", source="image-folder", data_dir=str(folders), image_size=16)
    assert "--extend" not in str(refused.value)
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "b", **glob)
    shard(tars, 0, lambda at: (at + 1) % 2)
    shard(tars, 3, lambda at: at % 2)
    with pytest.raises(ConfigError, match=r"1 new .*1 changed .* Do the stage again"):
        prepare(tmp_path / "b", **glob)


def test_relabelled_tars_are_noticed_by_every_stage(tars, tmp_path):
    """Of the same names and sizes: only the time tells, and the content, which is small here."""
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    shard(tars, 0, lambda at: (at + 1) % 2)
    config = pipeline.stored_config(str(tmp_path / "run"))
    for stage in (pipeline.prepare, pipeline.index_shards, pipeline.train, pipeline.score):
        with pytest.raises(ConfigError, match=r"1 changed \(such as .*t-000\.tar\).*--redo"):
            stage(config)
    index = prepare(tmp_path / "run", redo=True, **glob)
    assert index.examples["label"].to_pylist()[:4] == [1, 0, 1, 0]


def test_of_very_many_shards_each_is_known_by_name(tars, tmp_path, monkeypatch):
    """Above the number of files of a source that are named, no change of a shard was noticed."""
    monkeypatch.setattr(data_fingerprint, "_MAX_NAMED", 2)
    monkeypatch.setattr(data_fingerprint, "CONTENT_BYTES", 0)
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    config = pipeline.stored_config(str(tmp_path / "run"))
    shard(tars, 3, lambda at: at % 2)
    with pytest.raises(ConfigError, match=r"1 new \(such as .*t-003\.tar"):
        pipeline.score(config)
    (tars / "t-003.tar").unlink()
    shard(tars, 0, lambda at: (at + 1) % 2)
    for stage in (pipeline.prepare, pipeline.index_shards, pipeline.train, pipeline.score):
        with pytest.raises(ConfigError, match=r"1 changed \(such as .*t-000\.tar\).*--redo"):
            stage(config)


def test_a_run_that_kept_no_names_of_its_shards_says_what_is_not_checked(tars, tmp_path, caplog):
    prepare(tmp_path / "run", tars=(f"{tars}/t-*.tar",))
    url = tmp_path / "run/data" / noticing.FILE
    kept = json.loads(url.read_text())
    kept["shards"]["files"] = None
    url.write_text(json.dumps(kept))
    layout, data = RunLayout(str(tmp_path / "run")), DataConfig(tars=(f"{tars}/t-*.tar",))
    assert noticing.shard_change(layout, data) is None
    assert "whether the 3 shards are as they were is not known" in caplog.text


def test_indexed_shards_that_an_older_raygrad_did_not_list_are_not_new(tars, tmp_path):
    """Of a folder in a store it listed the files right in it, and read those further down too."""
    own = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **own)
    layout = RunLayout(str(tmp_path / "run"))
    path = tmp_path / "run" / "data" / noticing.FILE
    listed = json.loads(path.read_text())
    del listed["shards"]["files"][f"{tars}/t-002.tar"]
    path.write_text(json.dumps(listed | {"shards": listed["shards"] | {"listing": "older"}}))
    assert noticing.new_shards(layout, DataConfig(**own)) is None
    shard(tars, 3, lambda at: at % 2)
    assert noticing.new_shards(layout, DataConfig(**own)) == f"1 new (such as {tars}/t-003.tar)"


def test_a_tar_that_is_gone_is_noticed(tars, tmp_path):
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    (tars / "t-001.tar").unlink()
    with pytest.raises(ConfigError, match=r"1 removed \(such as .*t-001\.tar\)"):
        prepare(tmp_path / "run", **glob)


def test_a_run_folder_that_was_moved_or_copied_still_opens(tmp_path):
    a = class_folders(tmp_path / "a", 0, 3)
    own = {"source": "image-folder", "image_size": 16, "data_dir": str(a)}
    prepare(tmp_path / "run", **own)
    shutil.copytree(tmp_path / "run", tmp_path / "other", copy_function=shutil.copyfile)
    assert prepare(tmp_path / "other", **own).examples.num_rows == 12


def test_a_run_of_before_fingerprints_is_held_against_nothing(tars, tmp_path):
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    layout = RunLayout(str(tmp_path / "run"))
    os.remove(f"{layout.data}/{noticing.FILE}")
    shard(tars, 0, lambda at: (at + 1) % 2)
    assert prepare(tmp_path / "run", **glob).examples.num_rows == 12


def test_a_damaged_fingerprint_is_named(tars, tmp_path):
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    url = f"{RunLayout(str(tmp_path / 'run')).data}/{noticing.FILE}"
    with open(url, "w") as stream:
        stream.write("{")
    with pytest.raises(ConfigError, match=r"fingerprint of a run .*fingerprint\.json"):
        prepare(tmp_path / "run", **glob)


def test_doing_the_data_again_removes_what_came_of_them_and_nothing_else(tars, tmp_path):
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    for name in ("train/cnn/best.pt", "scores/cnn/x", "subsets/x", "sweep/trials/x.json", "mine"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}")
    prepare(tmp_path / "run", redo=True, **glob)
    assert (tmp_path / "run/train/cnn/best.pt").exists(), "nothing had changed"
    prepare(tmp_path / "run", redo=True, val_fraction=0.3, **glob)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"config.json", "data", "stages", "journal", "mine"}


def test_a_changed_value_is_named_and_done_again_on_request(tars, tmp_path):
    glob = {"tars": (f"{tars}/t-*.tar",)}
    prepare(tmp_path / "run", **glob)
    with pytest.raises(ConfigError, match=r"data\.val_fraction was 0\.1, got 0\.3\. .*--redo"):
        prepare(tmp_path / "run", val_fraction=0.3, **glob)


def test_results_of_an_older_raygrad_are_said_to_differ(monkeypatch, tmp_path, caplog):
    layout = RunLayout(str(tmp_path))
    monkeypatch.setattr(noticing, "RESULTS", {})
    write_marker(layout.marker("score-cnn"), "d")
    completed(layout, "score-cnn", "d")
    assert caplog.text == ""
    monkeypatch.setitem(noticing.RESULTS, "score", (2, "the margin has another scale"))
    completed(layout, "score-cnn", "d")
    assert "the margin has another scale. They are kept; --redo" in caplog.text
    caplog.clear()
    write_marker(layout.marker("score-cnn"), "d", **origin_facts("score-cnn", None))
    completed(layout, "score-cnn", "d")
    assert caplog.text == ""


def test_a_stage_is_done_again_when_it_is_asked_for_alone(tars, tmp_path, monkeypatch):
    """`raygrad train --redo`: the network and its scores go, a random subset's retrainings stay."""
    run = tmp_path / "run"
    prepare(run, tars=(f"{tars}/t-*.tar",))
    layout = RunLayout(str(run))
    config = dataclasses.replace(
        pipeline.stored_config(str(run)),
        train=TrainConfig(network="mlp"),
        score=ScoreConfig(network="mlp", fresh_weights=True, image_size=16),
        sweep=SweepConfig(),
    )
    write_marker(layout.marker("score-mlp"), "other")
    trials = run / "sweep/trials"
    trials.mkdir(parents=True)
    for name, method in (("a", "random"), ("b", "max_gradient")):
        row = {"method": method, "keep_fraction": 0.1, "seed": 0}
        (trials / f"{name}.json").write_text(json.dumps(row))
    with pipeline.bound(config, True, "score"):
        assert not os.path.exists(layout.marker("score-mlp"))
        assert [path.name for path in trials.iterdir()] == ["a.json"]
    write_marker(layout.marker("train-mlp"), digest("x"))
    with pipeline.bound(config, True, "train"):
        assert not os.path.exists(layout.marker("train-mlp"))
        assert not trials.exists()
    assert read_json(layout.marker("prepare"))["num_examples"] == 12
