"""The user's own code, loss and first weights: a change of theirs is noticed at the next start."""

import sys
from pathlib import Path

import pytest

from raygrad.config import StudyConfig, TrainConfig
from raygrad.config_values import identity
from raygrad.errors import ConfigError
from raygrad.pipeline import noticing, sweeping
from raygrad.pipeline.redoing import forget_changed
from raygrad.pipeline.score_inputs import ScoreInputs
from raygrad.pipeline.stages import completed, origin_facts, training_inputs
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import _compare
from raygrad.storage.manifest import digest, write_marker
from raygrad.training.source_code import code_digest
from tests.pipeline.making_runs import without_ray


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's with a helper beside it; importable, and forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ownnet.py").write_text("from ownlayers import wide\nimport torch\n")
    (tmp_path / "ownlayers.py").write_text("wide = 8\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    yield tmp_path
    for name in ("ownnet", "ownlayers"):
        sys.modules.pop(name, None)


def test_the_digest_of_code_is_of_its_files_and_of_what_they_import_beside_them(own_module):
    first = code_digest("ownnet:net")
    (own_module / "unrelated.py").write_text("x = 2\n")
    assert code_digest("ownnet:net") == first
    (own_module / "ownlayers.py").write_text("wide = 16\n")
    second = code_digest("ownnet:net")
    assert second != first
    (own_module / "ownnet.py").write_text("from ownlayers import wide  # x\nimport torch\n")
    assert code_digest("ownnet:net") not in (first, second)
    assert code_digest("cnn") is None
    assert code_digest("torch.nn:Linear").startswith("version ")


def test_a_package_imports_relatively_and_stands_whole(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "ownpackage"
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import parts\n")
    (folder / "net.py").write_text("from .parts import x\n")
    (folder / "parts.py").write_text("x = 1\n")
    first = code_digest("ownpackage.net:build")
    (folder / "parts.py").write_text("x = 2\n")
    assert code_digest("ownpackage.net:build") != first


def test_a_stage_of_other_code_is_refused_and_one_of_unknown_code_is_not(own_module, tmp_path):
    layout = RunLayout(str(tmp_path / "run"))
    name = "ownnet:net"
    code = noticing.code_of(name, "cnn", None)
    assert list(code) == [name]
    marker = layout.marker("train-ownnet:net")
    write_marker(marker, "d", **origin_facts("train-ownnet:net", code))
    assert completed(layout, "train-ownnet:net", "d", code) is not None
    (own_module / "ownlayers.py").write_text("wide = 16\n")
    with pytest.raises(ConfigError, match=r"source code of ownnet:net is another\. Do .*--redo"):
        completed(layout, "train-ownnet:net", "d", noticing.code_of(name))
    write_marker(marker, "d")
    assert completed(layout, "train-ownnet:net", "d", noticing.code_of(name)) is not None


def test_a_sweep_is_not_continued_with_other_code(own_module, tmp_path):
    layout = RunLayout(str(tmp_path / "run"))
    noticing.check_sweep_code(layout, ["cnn", "ownnet:net"])
    noticing.check_sweep_code(layout, ["ownnet:net"])
    (own_module / "ownnet.py").write_text("import torch\n")
    with pytest.raises(ConfigError, match=r"stage sweep .*source code of ownnet:net"):
        noticing.check_sweep_code(layout, ["ownnet:net"])


def test_a_sweep_is_not_continued_with_another_loss_or_other_weights(own_module, tmp_path):
    """Trials of two losses, or from two sets of weights, would stand in one table."""
    layout = RunLayout(str(tmp_path / "run"))
    start = tmp_path / "start.pt"
    start.write_bytes(b"first")
    noticing.check_sweep_code(layout, ["cnn", "ownnet:loss"], start_from=str(start))
    noticing.check_sweep_code(layout, ["cnn", "ownnet:loss"], start_from=str(start))
    start.write_bytes(b"second")
    with pytest.raises(ConfigError, match=r"stage sweep .*the content of .*start\.pt"):
        noticing.check_sweep_code(layout, ["cnn", "ownnet:loss"], start_from=str(start))
    (own_module / "ownlayers.py").write_text("wide = 16\n")
    with pytest.raises(ConfigError, match=r"stage sweep .*source code of ownnet:loss"):
        noticing.check_sweep_code(layout, ["cnn", "ownnet:loss"])


def test_a_sweep_looks_at_its_loss_and_its_first_weights(own_module, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sweeping, "refuse_changed_shards", lambda config: None)
    monkeypatch.setattr(sweeping, "planned_trials", lambda *given: sys.exit("far enough"))
    monkeypatch.setattr(
        sweeping, "check_sweep_code", lambda _, *names, **more: seen.append((names, more))
    )
    train = TrainConfig(loss="ownnet:loss", start_from="start.pt")
    with pytest.raises(SystemExit, match="far enough"):
        sweeping.sweep(StudyConfig(str(tmp_path / "run"), train=train))
    (((names,), more),) = seen
    assert names == ("cnn", "ownnet:loss")
    assert more["start_from"] == "start.pt"


def test_a_training_by_another_loss_is_done_again_on_request(own_module, tmp_path):
    """--redo is what the refusal offers; it must find what is refused."""
    train = TrainConfig(loss="ownnet:loss")
    config = StudyConfig(str(tmp_path / "run"), train=train)
    layout = RunLayout(config.run)
    write_marker(layout.marker("prepare"), digest(identity(config.data)), digest="d")
    inputs = training_inputs(config)
    facts = origin_facts("train-cnn", noticing.training_code(config))
    write_marker(layout.marker("train-cnn"), inputs, **facts)
    forget_changed(config)
    assert Path(layout.marker("train-cnn")).exists()
    (own_module / "ownlayers.py").write_text("wide = 16\n")
    forget_changed(config)
    assert not Path(layout.marker("train-cnn")).exists()


def test_parts_of_a_score_table_do_not_mix_code_but_older_ones_say_nothing_of_it():
    _compare({"network": "a"}, {"network": "a", "code": "1"}, "part")
    with pytest.raises(ConfigError, match="another code"):
        _compare({"network": "a", "code": "2"}, {"network": "a", "code": "1"}, "part")
    plain = {"network": "a", "checkpoint": "c"}
    both = (ScoreInputs((), None, p) for p in (plain, {**plain, "code": "1"}))
    assert len({inputs.digest for inputs in both}) == 1, "markers keep their digests"
