"""A flag that nothing would read is refused by name; what a run or a recipe carries never is."""

import dataclasses
import logging
import re

import pytest
import torch

import raygrad
from raygrad import pipeline
from raygrad.api.unused import refuse_unused
from raygrad.cli import command as cli
from raygrad.cli import job
from raygrad.config import DataConfig, ScoreConfig, SelectConfig, StudyConfig, TrainConfig
from raygrad.config.auditing import AuditConfig
from raygrad.errors import ConfigError
from raygrad.pipeline import training
from raygrad.pipeline.data_settings import refuse_unused_of_shards
from raygrad.training.models import ImageSpec, build_network
from tests.cases import make_tiny_config
from tests.data.making import examples, put, tar
from tests.pipeline.making_runs import class_folders, without_ray

REFUSED = [
    ("audit --run RUN --test-data t.tar", "test_tars must come with data of your own, got t.tar"),
    ("audit --run RUN --labels txt", "labels must come with data of your own, got txt"),
    ("audit --run RUN --renumber", "renumber must come with data of your own"),
    ("audit --run RUN --mean 0 --std 1", "mean must be of a checkpoint"),
    ("audit --run RUN --num-classes 7", "num_classes must be of a checkpoint, got 7"),
    ("score --run RUN --labels txt", "labels must come with data of your own, got txt"),
    ("score --run RUN --image left.png", "image must come with data"),
    ("score --run RUN --renumber", "renumber must come with data"),
    ("score --run RUN --channels 1", "channels must come with data"),
    ("score --run RUN --image-size 64", "image_size must be of a network of your own, got 64"),
    ("score --run RUN --mean 0 --std 1", "mean must be of a network of your own"),
    ("score --run RUN --resize 300", "resize must be of a network of your own"),
    ("score --run RUN --num-classes 7", "num_classes must be of a network of your own"),
    ("score --run RUN --no-keep-aspect", "keep_aspect must be of a network of your own"),
    ("score --run RUN --weights-seed 7", "weights_seed must be of fresh weights"),
    (
        "score --run RUN --network mlp --checkpoint net.pt --weights-seed 7",
        "weights_seed must be of fresh weights",
    ),
    (
        "run --run RUN --score.network mlp --score.fresh-weights --select.compare-networks cnn5",
        "compare_networks must be beside a network that the run trains, got cnn5",
    ),
    ("sweep --run RUN --subsets a.parquet --methods ccs", "methods must be of subsets that are dr"),
    ("sweep --run RUN --subsets a.parquet --seeds 7", "seeds must be of subsets that are drawn"),
    ("plan --run RUN --subsets a.parquet --keep-fraction 0.2", "keep_fractions must be of subsets"),
    ("select RUN --methods random --options d2.gamma_r=2", "got d2.gamma_r=2 without d2. Name it"),
    ("select RUN --methods random --drop-fraction 0.2", "must be of the method non_extreme_max"),
    ("select RUN --methods random --ccs-drop cifar10", "ccs_drop must be of the method ccs"),
    ("prepare mnist --data-dir EMPTY --test-fraction 0.3 --run NEW", "the source mnist, which has"),
    ("prepare digits --test-fraction 0.3 --run NEW", "test split of its own. Leave it"),
    ("prepare cifar10 --data-dir EMPTY --channels 1 --run NEW", "got 1 with the source cifar10"),
    ("prepare ./good.tar --out out --run NEW", "out must be of data that are written"),
    ("prepare ./good.tar --download --run NEW", "download must be of a source"),
    ("train --run RUN --epochs 5 --keep-epochs 2 50", "among the 5 epochs of training, got 50"),
    ("train --run RUN --epochs 5 --bound-epochs 60", "bound_epochs must be among the 5 epochs"),
    ("train --run RUN --dynamics-epochs 5", "dynamics_epochs must be of training dynamics"),
    ("train --run RUN --rest-momentum 0.5", "rest_momentum must be of the optimizer muon"),
    ("index --extend --redo --run RUN", "--extend must go on with what is indexed, got --redo"),
    ("export a.parquet --run RUN --out out --format folders --shard-bytes 5", "with folders"),
    ("plan --run RUN --price-per-device-hour nan", "got nan. Give a price"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run folder of the digits, prepared and no more, beside shards and a folder of images."""
    folder = tmp_path_factory.mktemp("unused")
    config = make_tiny_config(folder)
    put(folder, "good.tar", tar(examples(["a", "b"])))
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        pipeline.bind(config)
        pipeline.prepare(config)
    return folder, config


@pytest.mark.parametrize(("line", "text"), REFUSED)
def test_a_flag_that_nothing_reads_is_refused(line, text, place, monkeypatch, capsys):
    """And what the run holds stays as it was."""
    folder, config = place
    without_ray(monkeypatch)
    monkeypatch.chdir(folder)
    for word, value in {"RUN": config.run, "NEW": f"{folder}/new", "EMPTY": "empty"}.items():
        line = line.replace(word, value)
    assert cli.main(line.split()) == 2
    said = capsys.readouterr().err
    assert re.search(text, said), said
    assert [one.startswith("raygrad: ") for one in said.splitlines()].count(True) == 1
    assert "Traceback" not in said
    assert pipeline.stored_config(config.run) == config
    assert pipeline.stored_config(f"{folder}/new") is None


def test_methods_of_python_refuse_the_same(place):
    run = raygrad.Run(place[1].run)
    for call, text in {
        "image_size must be": lambda: run.score(image_size=64),
        "labels must come": lambda: run.score(labels="txt"),
        "renumber must come": lambda: run.audit(renumber=True),
        "keep_epochs must be": lambda: run.train(epochs=5, keep_epochs=[50]),
        "seeds must be of": lambda: run.sweep("a.parquet", select={"seeds": 7}),
    }.items():
        with pytest.raises(ConfigError, match=call):
            text()


def test_epochs_of_an_audit_whose_network_is_not_trained_are_refused(place, tmp_path):
    _, config = place
    torch.save(build_network("mlp", ImageSpec(1, 8, 8, 10), 0).state_dict(), tmp_path / "net.pt")
    options = AuditConfig(
        network="mlp", checkpoint=str(tmp_path / "net.pt"), image_size=8, mean=(0.0,), std=(1.0,),
        epochs=5,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"epochs must be of networks that an audit trains, got"):
        pipeline.audit(config, options)


def test_what_a_run_or_recipe_carries_is_not_refused():
    was = StudyConfig(
        "r",
        train=TrainConfig(bound_epochs=(1, 30), keep_epochs=(20,), dynamics_epochs=5),
        score=ScoreConfig(image_size=64, weights_seed=3),
        select=SelectConfig(drop_fraction=0.2, options=("d2.gamma_r=2",), compare_networks=("a",)),
    )
    train = dataclasses.replace(was.train, epochs=5)
    select = dataclasses.replace(was.select, methods=("random",))
    score = dataclasses.replace(was.score, network="mlp", checkpoint=("a.pt",))
    refuse_unused({"train": train, "select": select, "score": was.score}, was)
    refuse_unused({"select": select, "score": score}, was)


def test_what_a_recipe_carries_beyond_its_last_epoch_is_said(caplog):
    with caplog.at_level(logging.INFO, "raygrad"):
        training._tell_unused(TrainConfig(epochs=5, bound_epochs=(1, 10, 30)))
    assert "train: bound_epochs 10 30: not reached in 5 epochs" in caplog.text


def test_the_size_of_shards_that_a_job_carries_is_said_to_be_of_no_use(place, caplog):
    """The job names a source by default, and is given the user's own shards."""
    data = DataConfig(tars=(f"{place[0]}/good.tar",), shard_bytes=5)
    with caplog.at_level(logging.INFO, "raygrad"):
        refuse_unused_of_shards(data, is_new=True)
    assert "shard_bytes 5 is not used" in caplog.text


def test_class_folders_and_grey_sources_take_what_they_took(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    photos = class_folders(tmp_path / "photos", 0, 3)
    for number, line in enumerate(
        (
            f"prepare {photos}/train --test-fraction 0.4 --shard-bytes 9000 --channels 1",
            f"index {photos} --shard-bytes 9000",
            "prepare digits --channels 1 --shard-bytes 90000",
        )
    ):
        assert cli.main([*line.split(), "--run", str(tmp_path / f"run{number}")]) == 0


def test_a_job_refuses_what_it_cannot_do(tmp_path, capsys):
    config = make_tiny_config(tmp_path)
    for flags, text in {
        ("--smoke",): "--smoke must be of a job that has a small form",
        ("--plan", "--redo"): "a plan must be of what is left in the run folder, got --redo",
        ("--plan", "--score.image-size", "64"): "image_size must be of a network of your own",
    }.items():
        assert job(config, None, flags) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("line", ["--run a --run b", "--run=a --storage b", "--run a --run=b"])
def test_of_a_run_that_is_named_twice_the_last_counts_for_its_settings_too(line):
    """As the parser has it: a run's settings were those of the first, and the work the second's."""
    assert cli._value(line.split(), *cli.RUN) == "b"


def test_a_plan_names_no_network_to_compare_that_is_not_trained(tmp_path, capsys):
    config = make_tiny_config(tmp_path)
    select = dataclasses.replace(config.select, compare_networks=("mlp",))
    config = dataclasses.replace(config, select=select)
    assert job(config, None, ["--plan"]) == 0
    assert "mlp to compare" in capsys.readouterr().out
    own = ["--score.network", "mlp", "--score.fresh-weights"]
    assert job(config, None, ["--plan", *own]) == 0
    assert "to compare" not in capsys.readouterr().out
