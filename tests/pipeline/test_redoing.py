"""Doing a stage again removes what came of it, all of it, and nothing before it can be done."""

import dataclasses
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.config import StudyConfig, SweepConfig, TrainConfig
from raygrad.config_values import identity
from raygrad.data.shards import DATASET_FILE
from raygrad.errors import ConfigError
from raygrad.pipeline import redoing, study
from raygrad.pipeline.noticing import check_sweep_code
from raygrad.pipeline.redoing import (
    _with_replicates,
    forget_changed,
    forget_features,
    forget_retrainings,
    forget_trials,
)
from raygrad.pipeline.replicates import compared_networks, trained_replicates
from raygrad.pipeline.stages import training_inputs
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ASIDE, ResultRows, write_row
from raygrad.storage import files
from raygrad.storage.manifest import digest, write_json, write_marker
from raygrad.training.models import ImageSpec, build_network
from tests.data.making import example, jpeg, put
from tests.pipeline.making_runs import without_ray


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


def test_replicates_of_a_network_with_a_folder_in_its_name_are_found(tmp_path):
    """Where they stand now, and where an older raygrad wrote them."""
    layout, name = RunLayout(str(tmp_path)), "timm/resnet18"
    for number in (1, 2):
        write_marker(layout.marker(f"train-{name}-seed{number}"), "d")
    write_marker(f"{tmp_path}/stages/train-{name}-seed3.json", "d")
    names = _with_replicates(layout, "train", name)
    assert names == [name, *(f"{name}-seed{number}" for number in (1, 2, 3))]
    for one in names:
        files.remove(layout.marker(f"train-{one}"))
    assert layout.marked() == []
    write_marker(layout.marker(f"features-{name}@abcd"), "d")
    write_marker(layout.marker(f"features-{name}50"), "d")
    forget_features(layout, name)
    assert layout.marked() == ["features-timm-resnet1850"]


def test_retrainings_that_are_removed_are_not_in_the_table_either(tmp_path):
    layout = RunLayout(str(tmp_path))
    for trial, method in (("a", "random"), ("b", "ccs")):
        row = {"method": method, "keep_fraction": 0.1, "seed": 0, "network": "cnn"}
        write_row(layout.sweep, {"trial": trial, **row})
    ResultRows(layout.sweep, layout.results).write()
    forget_trials(layout)
    assert pq.read_table(layout.results)["trial"].to_pylist() == ["a"]


def everything_in(run):
    return sorted(str(path.relative_to(run)) for path in Path(run).rglob("*") if path.is_file())


OWN = "--network mlp --image-size 8 --mean 0 --std 1 --num-classes 10 --columns loss"


@pytest.fixture
def scored(tmp_path):
    """A run whose digits a checkpoint of one's own network has scored."""
    run, weights = str(tmp_path / "run"), str(tmp_path / "w.pt")
    torch.save(build_network("mlp", ImageSpec(1, 8, 8, 10), 0).state_dict(), weights)
    assert cli.main(["prepare", "digits", "--run", run]) == 0
    assert cli.main(["score", "--run", run, *OWN.split(), "--checkpoint", weights]) == 0
    write_row(RunLayout(run).sweep, {"trial": "a", "method": "ccs", "network": "mlp"})
    return run, weights


def test_data_that_are_not_there_remove_nothing(scored, tmp_path, capsys):
    run, _ = scored
    before = everything_in(run)
    for given in (["image-folder", str(tmp_path / "typo")], ["digits", "--data-dir", "typo"]):
        assert cli.main(["prepare", *given, "--run", run, "--redo"]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert everything_in(run) == before


@pytest.mark.parametrize("gone", ["the flag's", "the run's"])
def test_a_checkpoint_that_is_not_there_removes_no_scores(gone, scored, tmp_path, capsys):
    run, weights = scored
    before = everything_in(run)
    if gone == "the run's":
        Path(weights).unlink()
        assert (
            cli.main(["score", "--run", run, "--redo", *OWN.split(), "--checkpoint", weights]) == 2
        )
    else:
        missing = str(tmp_path / "missing.pt")
        assert (
            cli.main(["score", "--run", run, "--redo", *OWN.split(), "--checkpoint", missing]) == 2
        )
    assert "checkpoint must exist" in capsys.readouterr().err
    assert everything_in(run) == before
    if gone == "the run's":  # nobody can tell whether the scores are still of it
        with pytest.raises(ConfigError, match="checkpoint must exist"):
            forget_changed(pipeline.stored_config(run))
        forget_changed(pipeline.stored_config(run), "audit")
        assert everything_in(run) == before


def test_scores_of_ones_own_network_are_done_again_where_they_can_be(scored):
    run, weights = scored
    assert cli.main(["score", "--run", run, "--redo", *OWN.split(), "--checkpoint", weights]) == 0
    assert Path(RunLayout(run).marker("score-mlp")).exists()
    assert ResultRows(RunLayout(run).sweep, RunLayout(run).results).rows == {}


@pytest.fixture
def trained(tmp_path):
    """A run that trained three networks beside each other, as far as its markers tell."""
    config = StudyConfig(str(tmp_path / "run"), train=TrainConfig(network="cnn", epochs=10))
    select = dataclasses.replace(config.select, compare_networks=("mlp",), score_seeds=(0, 7))
    config = dataclasses.replace(config, select=select)
    layout = RunLayout(config.run)
    write_marker(layout.marker("prepare"), digest(identity(config.data)), digest="d")
    write_json(files.join(layout.data, DATASET_FILE), {"channels": 1, "num_classes": 10})
    others = [*trained_replicates(config), *compared_networks(config)]
    for of, name in [(config, "cnn"), *others]:
        write_marker(layout.marker(f"train-{name}"), training_inputs(of), digest=name)
        write_marker(layout.marker(f"score-{name}"), "d", digest=name)
    return config


def left(config):
    return {name for name in RunLayout(config.run).marked() if name != "prepare"}


def test_networks_beside_the_runs_own_are_done_again_too(trained, monkeypatch):
    """Else the command would refuse them, and offer --redo, each time."""
    monkeypatch.setattr(redoing, "score_inputs", lambda of, name: _Scored())
    assert len(left(trained)) == 6
    forget_changed(trained)
    assert len(left(trained)) == 6
    write_marker(RunLayout(trained.run).marker("score-mlp"), "another")
    forget_changed(trained)
    assert left(trained) == {f"train-{name}" for name in ("cnn", "cnn-seed7", "mlp")} | {
        "score-cnn", "score-cnn-seed7"
    }  # fmt: skip
    shorter = dataclasses.replace(trained.train, epochs=5, lr_decay_epochs=())
    forget_changed(dataclasses.replace(trained, train=shorter))
    assert left(trained) == set()


class _Scored:
    digest, loss = "d", "cross_entropy"


def test_scores_of_a_network_beside_it_take_what_was_drawn_by_them_alone(trained):
    layout = RunLayout(trained.run)
    for name in ("random-0.1-0", "mlp-1234/ccs-0.1-0", "cnn-seed7-12/ccs-0.1-0"):
        files.write_bytes(f"{layout.url}/subsets/{name}.parquet", b"x")
    by = [("a", "random", "mlp", None), ("b", "ccs", "mlp", None), ("c", "ccs", "cnn", 7)]
    for trial, method, network, seed in by:
        row = {"trial": trial, "method": method, "network": "cnn", "score_network": network}
        write_row(layout.sweep, row | {"score_seed": seed})
    redoing._forget_scores(layout, "mlp", beside=True)
    assert set(ResultRows(layout.sweep, layout.results).rows) == {"a", "c"}
    assert everything_in(f"{layout.url}/subsets") == [
        "cnn-seed7-12/ccs-0.1-0.parquet",
        "random-0.1-0.parquet",
    ]
    redoing._forget_scores(layout, "cnn-seed7", beside=True)
    assert set(ResultRows(layout.sweep, layout.results).rows) == {"a"}


def test_scores_of_a_training_that_is_another_now_are_not_removed_by_score(trained, monkeypatch):
    """`score` trains nothing: it would end with the run's network and scores gone."""
    before = left(trained)
    shorter = dataclasses.replace(trained.train, epochs=5, lr_decay_epochs=())
    with pytest.raises(ConfigError, match=r"Train it again first: raygrad train --redo"):
        forget_changed(dataclasses.replace(trained, train=shorter), "score")
    assert left(trained) == before


def test_first_weights_that_are_not_there_remove_no_training(trained, tmp_path):
    before = left(trained)
    other = dataclasses.replace(trained.train, start_from=str(tmp_path / "none.pt"))
    for stage in ("train", None):
        with pytest.raises(ConfigError, match="checkpoint must exist"):
            forget_changed(dataclasses.replace(trained, train=other), stage)
    assert left(trained) == before


def test_what_pulls_a_loss_goes_with_the_network_and_its_scores(trained):
    url = f"{trained.run}/influence/a.parquet"
    for forget in (
        lambda: redoing._forget_data(RunLayout(trained.run)),
        lambda: redoing._forget_training(trained, "cnn"),
        lambda: redoing._forget_scores(RunLayout(trained.run), "cnn"),
    ):
        files.write_bytes(url, b"x")
        forget()
        assert not files.exists(url)


def test_retrainings_by_other_code_are_done_again_on_request(tmp_path, monkeypatch):
    """Those of the network whose code it is, what was set aside too; the loss is of all."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sweptnet.py").write_text("import torch\n")
    (tmp_path / "sweptloss.py").write_text("import torch\n")
    train = TrainConfig(loss="sweptloss:loss")
    networks = ("cnn", "sweptnet:net")
    config = StudyConfig(str(tmp_path / "run"), train=train, sweep=SweepConfig(networks=networks))
    layout = RunLayout(config.run)

    def check():
        check_sweep_code(layout, (*networks, train.loss))

    check()
    for trial, network in (("a", "cnn"), ("b", "sweptnet:net"), ("c", "sweptnet:net")):
        write_row(layout.sweep, {"trial": trial, "method": "random", "network": network})
    ResultRows(layout.sweep, layout.results).set_aside(["c"])
    assert not forget_retrainings(layout, config)
    (tmp_path / "sweptnet.py").write_text("import torch  # another\n")
    with pytest.raises(ConfigError, match="--redo"):
        check()
    assert forget_retrainings(layout, config)
    check()
    assert set(ResultRows(layout.sweep, layout.results).rows) == {"a"}
    assert files.list_files(files.join(layout.sweep, ASIDE)) == []
    (tmp_path / "sweptloss.py").write_text("import torch  # another\n")
    assert forget_retrainings(layout, config)
    check()
    assert ResultRows(layout.sweep, layout.results).rows == {}
    for name in ("sweptnet", "sweptloss"):
        sys.modules.pop(name, None)


def test_a_whole_study_passes_redo_on_to_its_sweep(tiny_config, monkeypatch):
    seen = []
    for name in ("prepare", "train", "score", "select", "report"):
        monkeypatch.setattr(study, name, lambda *given: None)
    monkeypatch.setattr(study, "sweep", lambda config, redo=False: seen.append(redo))
    pipeline.run(tiny_config, redo=True)
    assert seen == [True]


@pytest.fixture
def changed_tar(tmp_path):
    """A run of tars that one's own network has scored, of which one changed since."""
    run, tars = str(tmp_path / "run"), tmp_path / "tars"
    tars.mkdir()
    for seed in (0, 1):
        members = []
        for at in range(6):
            members += example(f"{at}", at % 2, "jpg", jpeg(10 * seed + at, (8, 8)))
        put(tars, "t-0.tar", members)
        if not seed:
            assert cli.main(["index", str(tars / "t-*.tar"), "--run", run]) == 0
            assert cli.main(["score", "--run", run, *FRESH.split()]) == 0
    return run


FRESH = "--network linear --fresh-weights --image-size 8 --num-classes 2 --columns loss"


def test_training_again_removes_no_data_that_it_does_not_prepare(changed_tar, capsys):
    before = everything_in(changed_tar)
    assert cli.main(["train", "--run", changed_tar, "--network", "mlp", "--redo"]) == 2
    assert "the data must be as they were prepared, got others" in capsys.readouterr().err
    assert everything_in(changed_tar) == before


def test_scoring_again_indexes_the_tars_that_changed(changed_tar):
    url = RunLayout(changed_tar).marker("prepare")
    before = files.read_bytes(url)
    assert cli.main(["score", "--run", changed_tar, *FRESH.split(), "--redo"]) == 0
    assert files.read_bytes(url) != before
