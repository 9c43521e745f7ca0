"""What was refused binds nothing: neither the next command nor a run folder of its own."""

import dataclasses
import json
from pathlib import Path

import pytest

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.errors import ConfigError, DataError, IncompleteError, RaygradError, ResourceError
from raygrad.pipeline import training
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import write_marker
from tests.cases import make_tiny_config
from tests.pipeline.making_runs import without_ray


def changed(config, section, **values):
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **values)}
    )


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


def end(config, error, complete=None):
    """Begins work, completes a stage where one is named, and ends by the error."""
    with pipeline.bound(config):
        assert Path(config.run, "config.json").exists(), "a killed command goes on"
        if complete is not None:
            write_marker(RunLayout(config.run).marker(complete), "digest")
        raise error


@pytest.mark.parametrize("error", [ConfigError, DataError, ResourceError])
def test_a_failed_first_command_leaves_no_configuration(tiny_config, error):
    with pytest.raises(error, match="no"):
        end(tiny_config, error("no"))
    assert pipeline.stored_config(tiny_config.run) is None


@pytest.mark.parametrize("error", [IncompleteError, RaygradError, KeyboardInterrupt])
def test_work_that_was_begun_keeps_its_configuration(tiny_config, error):
    with pytest.raises(error):
        end(tiny_config, error("no"))
    assert pipeline.stored_config(tiny_config.run) == tiny_config


def test_sections_of_complete_stages_are_kept_and_refused_ones_are_as_before(tiny_config):
    """Data were prepared in the command that training refused."""
    first = changed(tiny_config, "train", epochs=2, lr_decay_epochs=())
    pipeline.bind(first)
    refused = changed(changed(first, "train", epochs=9), "data", val_fraction=0.2)
    refused = changed(refused, "select", drop_fraction=0.5)
    with pytest.raises(ConfigError, match="no such network"):
        end(refused, ConfigError("no such network"), complete="prepare")
    assert pipeline.stored_config(first.run) == changed(first, "data", val_fraction=0.2)


def test_a_value_that_the_stage_refuses_is_not_blamed_on_the_next_command(tmp_path, capsys):
    """As a user meets it: too few classes, then the same line without them."""
    run = str(tmp_path / "run")
    assert cli.main(["prepare", "digits", "--run", run]) == 0
    own = ["--network", "mlp", "--fresh-weights", "--image-size", "8", "--mean", "0", "--std", "1"]
    assert cli.main(["score", "--run", run, *own, "--num-classes", "3"]) == 2
    assert "num_classes must count every label, got 3" in capsys.readouterr().err
    stored = json.loads(Path(run, "config.json").read_text())
    assert (stored["score"]["num_classes"], stored["score"]["network"]) == (None, None)
    assert stored["data"]["source"] == "digits"


def test_a_first_command_whose_data_are_refused_leaves_no_run(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert cli.main(["prepare", "mnist", "--data-dir", str(tmp_path), "--run", run]) == 2
    assert "mnist" in capsys.readouterr().err.lower()
    assert pipeline.stored_config(run) is None
    assert cli.main(["prepare", "digits", "--run", run]) == 0


def test_files_and_folders_are_removed_on_s3_as_on_disk(s3_url, tmp_path):
    for root in (s3_url, str(tmp_path)):
        for name in ("a/one", "a/b/two", "ab"):
            files.write_bytes(files.join(root, name), b"x")
        files.remove(files.join(root, "a"))
        files.remove(files.join(root, "none"))
        assert not files.exists(files.join(root, "a/b/two"))
        assert not files.exists(files.join(root, "a/one"))
        assert files.exists(files.join(root, "ab")), "a name that begins alike is another's"


def test_a_study_of_a_network_that_cannot_be_built_leaves_the_data_alone(tmp_path, monkeypatch):
    config = changed(make_tiny_config(tmp_path), "train", network="inception_v3")
    monkeypatch.setattr(training, "ensure_ray", lambda: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="'inception_v3' must take images 1x8x8"):
        pipeline.run(config)
    stored = pipeline.stored_config(config.run)
    assert stored.data == config.data, "they are complete"
    assert stored.train.network != "inception_v3"
