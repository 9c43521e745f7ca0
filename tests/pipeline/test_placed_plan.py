"""A plan says of every stage where it will stand; without Ray, by the shapes of a cluster."""

import dataclasses

import pytest

from raygrad import pipeline
from raygrad.cli.whole_study import print_plan
from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.engine.nodes import Offer
from raygrad.engine.score import pool
from raygrad.engine.sweep import job as sweep_job
from raygrad.pipeline import forecasting, planning
from raygrad.training.plan import Rates
from tests.pipeline.making_runs import class_folders, without_ray

RATES = Rates(step_s=0.0, example_s=0.1, eval_example_s=0.0, trial_s=0.0, start_s=0.0)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A prepared run, and a cluster of two nodes of 16 CPUs and two GPUs."""
    without_ray(monkeypatch)
    config = StudyConfig(
        str(tmp_path / "run"),
        DataConfig(tars=(str(class_folders(tmp_path / "own", 0, 6)),), image_size=16),
        TrainConfig(network="linear", num_workers=8, nodes=("raygrad=train",)),
        ScoreConfig(columns=("loss",)),
        SelectConfig(methods=("random",), keep_fractions=(0.5,), score_column="loss"),
        SweepConfig(),
    )
    pipeline.prepare(config)
    offer = Offer([{"CPU": 16.0, "GPU": 2.0}] * 2)
    for module in (forecasting, pool, sweep_job):
        monkeypatch.setattr(module, "offer_of", lambda nodes=(): offer)
    monkeypatch.setattr(forecasting, "ensure_ray", lambda: None)
    monkeypatch.setattr(forecasting, "scoring_rate", lambda *_: 10.0)
    for module in (forecasting, planning):
        monkeypatch.setattr(
            module, "calibrate", lambda networks, *_: dict.fromkeys(networks, RATES)
        )
    return config


def test_a_plan_says_where_each_stage_will_stand(prepared, capsys):
    print_plan(prepared)
    said = capsys.readouterr().out
    nodes = "2 nodes of 2 GPU, 16 CPU"
    assert f"train: 4 workers instead of 8 on cuda, 1 GPU and 1 CPU each: {nodes}" in said
    assert f"score: 4 actors on cuda, 1 GPU and 7.2 CPU each: {nodes}" in said
    assert f" on cuda, 1 GPU and 1 CPU each: {nodes}" in said.split("sweep: ")[1]
    assert "GPU-hours" in said


def test_a_plan_counts_the_training_and_scoring_of_every_scoring_network(prepared):
    """Those that are trained from other seeds, named, each as long as the run's own."""
    select = dataclasses.replace(prepared.select, score_seeds=(prepared.train.seed, 7, 8))
    alone = {said.stage: said for said in forecasting.forecast(prepared, 0.1)}
    said = forecasting.forecast(dataclasses.replace(prepared, select=select), 0.1)
    for stage in ("train", "score"):
        found = [one for one in said if one.stage == stage]
        assert [one.wall_s for one in found] == 3 * [alone[stage].wall_s]
        assert [one.note.partition(":")[0] for one in found[1:]] == ["linear-seed7", "linear-seed8"]
