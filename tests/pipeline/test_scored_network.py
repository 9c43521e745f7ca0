"""The network that is scored is the one that was asked for, at every entrance."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.config import ScoreConfig
from raygrad.errors import ConfigError
from raygrad.pipeline import scoring
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import read_score_table
from raygrad.storage.manifest import read_json, write_json, write_marker
from raygrad.training.models import ImageSpec, build_network
from tests.cases import make_tiny_config
from tests.pipeline.making_runs import without_ray

SPEC = ImageSpec(1, 8, 8, 10)
OWN = {"network": "mlp", "image_size": 8, "mean": (0.5,), "std": (0.5,)}


def changed(config, section, **values):
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **values)}
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of an MLP, whose weights no default seed gives."""
    path = tmp_path_factory.mktemp("weights") / "mlp.pt"
    torch.save(build_network("mlp", SPEC, seed=11).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run folder that holds the digits and nothing else."""
    config = make_tiny_config(tmp_path_factory.mktemp("scored"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        pipeline.bind(config)
        pipeline.prepare(config)
    return config


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


@pytest.mark.parametrize("entrance", ["pipeline.score", "raygrad score"])
def test_a_configured_network_and_its_checkpoint_are_what_is_scored(
    prepared, weights, entrance, monkeypatch
):
    """Not the run's own, which is not even trained here."""
    asked = []

    def engine(config, task, *waiting):
        asked.extend(task.networks)
        return {"num_examples": 1, "num_shards": 1}

    monkeypatch.setattr(scoring.score_engine, "score", engine)
    if entrance == "pipeline.score":
        pipeline.score(changed(prepared, "score", **OWN, checkpoint=(weights,)))
    else:
        flags = ["--image-size", "8", "--mean", "0.5", "--std", "0.5", "--checkpoint", weights]
        assert cli.main(["score", "--run", prepared.run, "--network", "mlp", *flags]) == 0
    Path(RunLayout(prepared.run).marker("score-mlp")).unlink()
    [source] = asked
    assert (source.network, source.checkpoint_url) == ("mlp", weights)


def test_its_table_stands_under_its_name_and_subsets_are_drawn_by_it(prepared, weights, caplog):
    config = changed(prepared, "score", **OWN, checkpoint=(weights,))
    inputs = score_inputs(config)
    # What unpickles torch's own kind of string imports torch.
    assert {type(value) for value in inputs.provenance.values()} == {str}
    assert inputs.provenance["network"] == "mlp"
    pipeline.score(config)
    pipeline.select(config)
    table = read_score_table(RunLayout(config.run).scores("mlp")).to_pandas()
    hardest = set(table.nlargest(round(0.05 * len(table)), config.select.score_column).key)
    drawn = next(url for url in pipeline.subset_urls(config) if "max_gradient" in url)
    assert set(pq.read_table(drawn)["key"].to_pylist()) == hardest
    assert "less than one" not in caplog.text
    # A fraction of no example keeps one, once a seed and method, and says so once.
    few = changed(config, "select", keep_fractions=(1e-5,))
    pipeline.select(few)
    assert {pq.read_metadata(url).num_rows for url in pipeline.subset_urls(few)} == {1}
    said = f"keep_fraction 1e-05 of {len(table):,} examples is less than one; one is kept"
    assert caplog.text.count(said) == 1


@pytest.mark.parametrize("entrance", ["pipeline.score", "pipeline.run", "raygrad score"])
def test_fresh_weights_are_scored_only_when_asked_for(prepared, entrance, tmp_path, capsys):
    config = changed(prepared, "score", **{**OWN, "network": "linear"})
    if entrance == "raygrad score":
        # The folder as it was before anything was scored in it.
        run = shutil.copytree(prepared.run, tmp_path / "run")
        stored = json.loads((run / "config.json").read_text())
        stored["score"] |= {"network": None, "checkpoint": []}
        (run / "config.json").write_text(json.dumps(stored))
        flags = ["--run", str(run), "--network", "linear", "--weights-seed", "3"]
        assert cli.main(["score", *flags, "--image-size", "8", "--mean", "0.5", "--std", "1"]) == 2
        assert "--fresh-weights" in capsys.readouterr().err
        return
    elsewhere = dataclasses.replace(config, run=str(tmp_path / "run"))
    todo = {"pipeline.score": (pipeline.score, changed(config, "score", weights_seed=3))}
    do, asked = todo.get(entrance, (pipeline.run, elsewhere))
    with pytest.raises(ConfigError, match=r"got no checkpoint for 'linear'.*--fresh-weights"):
        do(asked)
    assert not Path(elsewhere.run).exists(), "nothing was prepared or trained for it"


def test_scores_of_fresh_weights_are_not_drawn_by_without_a_flag(prepared, tmp_path):
    """Neither where the stage says that they are, nor where an older one does not say it."""
    shutil.copytree(prepared.run, tmp_path / "run", ignore=shutil.ignore_patterns("subsets"))
    prepared = dataclasses.replace(prepared, run=str(tmp_path / "run"))
    own = {**OWN, "network": "linear", "fresh_weights": True}
    config = changed(prepared, "score", **own)
    pipeline.bind(config)
    pipeline.score(config)
    marker = RunLayout(config.run).marker("score-linear")
    facts = read_json(marker)
    assert facts["fresh_weights"] is True
    with pytest.raises(ConfigError, match="got those of fresh random weights of 'linear'"):
        pipeline.select(config)
    del facts["fresh_weights"]
    write_json(marker, facts)
    with pytest.raises(ConfigError, match="--fresh-scores"):
        pipeline.sweep(changed(config, "score", fresh_weights=False))
    pipeline.select(changed(config, "select", fresh_scores=True))


@pytest.mark.parametrize(
    ("score", "text"),
    [
        ({"checkpoint": ("x.pt",)}, "must come with its network"),
        ({**OWN, "checkpoint": ("x.pt",), "fresh_weights": True}, "got a checkpoint"),
        ({"fresh_weights": True}, "got the network that the run trains"),
        ({**OWN, "network": "mlpp", "fresh_weights": True}, "Did you mean 'mlp'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_first_stage(tiny_config, score, text):
    with pytest.raises(ConfigError, match=text):
        pipeline.run(dataclasses.replace(tiny_config, score=ScoreConfig(**score)))
    assert not Path(tiny_config.run).exists()


def test_a_complete_table_of_fresh_weights_of_before_the_flag_is_left_as_it_is(prepared, caplog):
    config = changed(prepared, "score", **OWN, weights_seed=5)
    layout = RunLayout(config.run)
    before = Path(layout.marker("score-mlp"))
    kept = before.read_bytes() if before.exists() else None
    done = {"data": read_json(layout.marker("prepare"))["digest"], "num_examples": 1}
    write_marker(layout.marker("score-mlp"), score_inputs(config).digest, **done)
    if not Path(layout.scores("mlp"), "_manifest.json").exists():
        write_json(f"{layout.scores('mlp')}/_manifest.json", {"shards": []})
    with caplog.at_level(logging.INFO, "raygrad"):
        pipeline.score(config)
    assert "score-mlp: complete, skipped" in caplog.text
    before.write_bytes(kept) if kept else before.unlink()
