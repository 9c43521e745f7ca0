"""What a run lends to a command line of its stored settings, and which belong to other values."""

import dataclasses
import logging

import pytest

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.config import DataConfig, ScoreConfig, SelectConfig, StudyConfig, TrainConfig

OWN = {"network": "mlp", "checkpoint": ("mlp.pt",), "image_size": 8}


@pytest.fixture
def parsed(tmp_path, monkeypatch, caplog):
    """Returns the command that a line is parsed to, in a run of the given sections."""

    def parse(command, line, **sections):
        stored = StudyConfig(str(tmp_path / "run"), **sections)
        monkeypatch.setattr(pipeline, "stored_config", lambda run: stored)
        with caplog.at_level(logging.INFO, "raygrad"):
            return cli._parse([command, *line.split(), "--run", stored.run])

    return parse


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", OWN),
        ("--network mlp", OWN),
        ("--checkpoint b.pt", {**OWN, "checkpoint": ("b.pt",)}),
        ("--network cnn", {**OWN, "network": "cnn", "checkpoint": ()}),
        ("--network cnn --checkpoint mlp.pt", {**OWN, "network": "cnn"}),
        ("--fresh-weights", {**OWN, "checkpoint": (), "fresh_weights": True}),
        ("--network None", {"network": None, "checkpoint": ("mlp.pt",), "image_size": 8}),
    ],
)
def test_a_checkpoint_is_of_the_network_that_it_was_given_with(parsed, line, expected, caplog):
    command = parsed("score", line, score=ScoreConfig(**OWN))
    assert command.score == ScoreConfig(**expected)
    assert ("not used with it" in caplog.text) == (expected["checkpoint"] == ())
    assert ("image_size 8 is kept" in caplog.text) == ("cnn" in line)


def test_permission_for_fresh_weights_is_of_its_network_alone(parsed):
    fresh = ScoreConfig(network="mlp", fresh_weights=True)
    assert parsed("score", "", score=fresh).score == fresh
    assert not parsed("score", "--network cnn", score=fresh).score.fresh_weights
    assert not parsed("score", "--checkpoint b.pt", score=fresh).score.fresh_weights
    assert parsed("run", "--score.network cnn", score=fresh).score == ScoreConfig(network="cnn")


def test_weights_to_start_from_are_of_their_network(parsed, caplog):
    before = TrainConfig(network="mlp", start_from="mlp.pt", epochs=7)
    assert parsed("train", "--epochs 8", train=before).train.start_from == "mlp.pt"
    other = parsed("train", "--network cnn", train=before).train
    assert other == dataclasses.replace(before, network="cnn", start_from=None)
    assert "start_from mlp.pt is not used with it" in caplog.text


TARS = DataConfig(tars=("a.tar",), test_tars=("b.tar",), labels="txt", split_seed=3)


@pytest.mark.parametrize("command", ["prepare", "run"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", TARS),
        ("digits", DataConfig(source="digits", split_seed=3)),
        ("mnist", DataConfig(source="mnist", split_seed=3)),
        ("--data a.tar c.tar", dataclasses.replace(TARS, tars=("a.tar", "c.tar"))),
    ],
)
def test_a_source_is_in_place_of_the_tars_that_the_run_had(parsed, command, line, expected):
    assert parsed(command, line, data=TARS).data == expected


def test_the_same_folder_again_keeps_its_labels(parsed, tmp_path):
    folder = str(tmp_path)
    before = DataConfig(tars=(folder,), labels="a.csv")
    assert parsed("prepare", folder, data=before).data == dataclasses.replace(
        before, source=folder
    ), "which the command prepare takes for tars"


def test_a_source_of_its_own_folder_is_not_given_anothers(parsed):
    mnist = DataConfig(source="mnist", data_dir="m")
    assert parsed("run", "mnist", data=mnist).data == mnist
    assert parsed("run", "cifar10", data=mnist).data == DataConfig(source="cifar10")
    assert parsed("run", "--data a.tar", data=mnist).data == DataConfig(tars=("a.tar",))


def test_a_network_of_another_runs_scores_is_not_looked_for_in_a_third(parsed):
    select = SelectConfig(score_run="a", score_network="mlp")
    assert parsed("select", "--score-run b", select=select).select == SelectConfig(score_run="b")


@pytest.mark.parametrize(
    "line", ["mnist --tars a.tar", "photos --data-dir b --tars a.tar", "--data-dir b --tars a.tar"]
)
def test_two_kinds_of_data_on_one_line_are_refused(line, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["prepare", *line.split(), "--run", str(run)]) == 2
    assert "got both" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("line", ["select R", "select --run R", "status --run=R", "train R"])
def test_a_run_folder_is_named_with_or_without_its_flag(line, tmp_path):
    run = str(tmp_path)
    assert cli._parse(line.replace("R", run).split()).run == run
