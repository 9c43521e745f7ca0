"""One rule for every stage: an example is used, or stands in a reject table with its reason."""

import dataclasses
import json
import logging
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad import pipeline
from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.data.index import read_index
from raygrad.errors import TooManyRejectsError
from raygrad.pipeline.data_ways import study_data
from raygrad.runs.layout import RunLayout
from tests.data.making import example, jpeg, put, tar

EACH = 30
BROKEN = 6
"""Images of each split's shard whose end is cut off."""


def prepare_here(config):
    """Does the stage prepare in this process, which needs no Ray for a few shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raygrad.pipeline.preparing.ensure_ray", lambda: None)
        patch.setattr("raygrad.pipeline.preparing.wait_for", lambda *_: None)
        patch.setattr("raygrad.engine.parallel.ray_map", map)
        pipeline.prepare(config)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run over 60 images, 12 of which are cut, and its configuration."""
    folder = tmp_path_factory.mktemp("rejects")
    urls = []
    for name in ("train", "test"):
        members = []
        for at in range(EACH):
            image = jpeg(at, (16, 16))
            cut = image[:-40] if at % 5 == 0 else image
            members += example(f"{name}{at}", at % 2, "jpg", cut)
        urls.append(put(folder, f"{name}.tar", tar(members)))
    config = StudyConfig(
        run=str(folder / "run"),
        data=DataConfig(tars=(urls[0],), test_tars=(urls[1],), val_fraction=0.2),
        train=TrainConfig(network="linear", epochs=1),
        score=ScoreConfig(columns=("loss",)),
        select=SelectConfig(
            methods=("random",), keep_fractions=(1.0,), seeds=(0,), score_column="loss"
        ),
        sweep=SweepConfig(protocols=("equal_epochs",)),
    )
    prepare_here(config)
    return config


def accepting(config, share, **data):
    """The configuration where a stage accepts this share of rejects."""
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, max_reject_share=share, **data)
    )


def rejects(config, *place):
    return pq.read_table(Path(config.run, *place, "rejects.parquet")).to_pylist()


def assert_names_the_broken(rows):
    assert sorted((row["shard"], row["key"]) for row in rows) == sorted(
        (name, f"{name}{at}") for name in ("train", "test") for at in range(0, EACH, 5)
    )
    (reason,) = {row["reason"] for row in rows}
    assert "got a JPEG image: image file is truncated" in reason


def test_too_many_undecodable_images_end_a_training_and_are_listed(prepared):
    with pytest.raises(TooManyRejectsError) as caught:
        pipeline.train(prepared)
    text = str(caught.value)
    assert "at most 1.000% of the images may be unusable, got 12 of 60" in text
    assert "--max-reject-share" in text
    assert "train/linear/rejects.parquet" in text
    assert "\n" not in text
    assert_names_the_broken(rejects(prepared, "train", "linear"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), len(again.rejects)) == (text, 12)


def test_they_end_a_sweep_before_its_first_trial_as_well(prepared, ray_session):
    subset = Path(prepared.run, "mine-0.parquet")
    keys = read_index(RunLayout(prepared.run).data).rows("train")["key"].to_pylist()
    good = [key for key in keys if int(key.removeprefix("train")) % 5]
    pq.write_table(pa.table({"key": good}), subset)
    pipeline.bind(prepared)
    with pytest.raises(TooManyRejectsError, match="12 of 60"):
        pipeline.sweep(prepared, (str(subset),))
    assert_names_the_broken(rejects(prepared, "sweep"))


def test_images_on_the_nodes_disk_are_counted_by_the_same_rule(prepared, tmp_path):
    layout = RunLayout(prepared.run)
    on_disk = accepting(prepared, 0.1, memory_bytes=0, cache_dir=str(tmp_path)).data
    with pytest.raises(TooManyRejectsError, match=r"at most 10.000% .* 12 of 60"):
        study_data(layout, on_disk).open()
    enough = dataclasses.replace(on_disk, max_reject_share=0.2)
    data = study_data(layout, enough).open()
    assert data.num_used + data.rejects.num_rows == 60


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory, ray_session):
    """The run, trained on what its nodes decode to disk, where a fifth may be rejected."""
    cache = str(tmp_path_factory.mktemp("cache"))
    config = accepting(prepared, 0.2, memory_bytes=0, cache_dir=cache)
    pipeline.train(config)
    return config


def test_accepted_rejects_are_counted_in_the_metrics_and_listed(trained):
    facts = json.loads(Path(trained.run, "train", "linear", "metrics.json").read_text())
    used = sum(facts[f"num_{split}"] for split in ("train", "val", "test"))
    assert used + facts["rejected"] == 60
    assert "rejects" not in facts
    assert_names_the_broken(rejects(trained, "train", "linear"))


def test_a_score_table_with_too_many_rejects_is_not_complete_before_they_are_accepted(
    trained, caplog
):
    Path(trained.run, "scores", "linear", "_manifest.json").unlink(missing_ok=True)
    with pytest.raises(TooManyRejectsError, match=r"at most 1\.000%"):
        pipeline.score(accepting(trained, 0.01))
    assert not Path(trained.run, "scores", "linear", "_manifest.json").exists()
    index = read_index(RunLayout(trained.run).data)
    with caplog.at_level(logging.WARNING, "raygrad"):
        facts = pipeline.score(accepting(trained, 0.3))
    assert facts["num_examples"] + facts["rejected"] == index.rows("train").num_rows
    listed = rejects(trained, "scores", "linear")
    assert len(listed) == facts["rejected"] > 0
    assert f"score: {len(listed)} of " in caplog.text
    assert "image file is truncated. (" in caplog.text


def test_a_sweep_says_and_lists_what_its_trials_could_not_use(trained, caplog):
    with caplog.at_level(logging.WARNING, "raygrad"):
        results = pipeline.sweep(trained)
    assert results.num_rows == 1
    assert "sweep: 12 of 60 images cannot be used" in caplog.text
    assert_names_the_broken(rejects(trained, "sweep"))


def test_scores_of_nothing_are_an_error_whatever_share_is_accepted(tmp_path, ray_session):
    """20 pages under .jpg names: not one can be decoded."""
    members = [
        pair for at in range(20) for pair in example(f"{at}", at % 2, "jpg", b"<html>%d" % at)
    ]
    tars = (put(tmp_path, "a.tar", tar(members)),)
    config = StudyConfig(
        run=str(tmp_path / "run"),
        data=DataConfig(tars=tars, val_fraction=0.0, max_reject_share=1.0),
        train=TrainConfig(network="linear"),
        score=ScoreConfig(columns=("loss",), network="linear", image_size=16, fresh_weights=True),
        select=SelectConfig(score_column="loss"),
    )
    prepare_here(config)
    with pytest.raises(TooManyRejectsError, match=r"20 of 20; most often: .* an HTML page"):
        pipeline.score(config)
    assert len(rejects(config, "scores", "linear")) == 20
    assert not Path(config.run, "scores", "linear", "_manifest.json").exists()
