"""`--plan` of a job: what would run and, once the data are prepared, its time and its cost."""

import os
import re

import pytest

from raygrad.cli import job, whole_study
from raygrad.config import ScoreConfig, StudyConfig, SweepConfig
from raygrad.pipeline import forecasting
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import write_row
from raygrad.scoring.memory import (
    batch_size_for,
    batch_size_within,
    bytes_each,
    pass_budget,
)
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.plan import Rates
from tests.cases import make_tiny_config


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_study, "PLAN_SECONDS", 0.5)
    return make_tiny_config(tmp_path)


def plan(config, capsys, *flags):
    """Returns the lines that `--plan` prints, by their first word."""
    assert job(config, None, ["--plan", *flags]) == 0
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


def seconds_and_hours(line):
    return [
        float(n.replace(",", "")) for n in re.findall(r"([\d.,e-]+) (?:s|CPU-hours)\b", line)[:2]
    ]


def test_before_the_data_are_prepared_no_time_is_made_up(config, capsys, tmp_path):
    said = plan(config, capsys)
    assert "--prepare" in said["time"]
    assert not (tmp_path / "run").exists()


def test_a_plan_predicts_every_stage_that_is_missing(config, capsys, ray_session):
    said = plan(config, capsys, "--prepare", "--score.price-per-hour", "100")
    found = {stage: said[f"{stage}"] for stage in ("decode", "train", "score", "sweep")}
    together = seconds_and_hours(said["together"])
    times = [seconds_and_hours(line) for line in found.values()]
    for at in (0, 1):
        assert sum(time[at] for time in times) == pytest.approx(together[at], rel=0.2, abs=2.1)
    assert all(time[1] > 0 for time in times)
    cost = float(re.search(r"cost ([\d.]+)", said["together"])[1])
    assert cost == pytest.approx(100 * together[1], rel=0.2, abs=0.1)
    # 2 methods x (5%, 2 seeds) and everything under 2 seeds, each under 2 protocols
    assert "12 retrainings" in found["sweep"]


def test_a_plan_grows_with_what_is_asked_for(config, capsys, ray_session, monkeypatch):
    """At known rates: a hundred times the epochs, a hundred times the time; each network counts."""
    rates = Rates(step_s=0.0, example_s=1.0, eval_example_s=0.0, trial_s=0.0, start_s=0.0)
    monkeypatch.setattr(
        forecasting, "calibrate", lambda networks, *_: dict.fromkeys(networks, rates)
    )
    monkeypatch.setattr(forecasting, "scoring_rate", lambda *_: 10.0)
    monkeypatch.setattr(forecasting, "_decode_s", lambda *_: 0.0)
    job(config, None, ["--prepare"])
    few = plan(config, capsys)
    many = plan(config, capsys, "--train.epochs", "300")
    num_train = seconds_and_hours(few["score"])[0] * 2 * 10  # two actors, ten a second each
    assert 1200 < num_train < 1400
    assert seconds_and_hours(few["train"])[0] == pytest.approx(3 * num_train / 2, rel=0.01)
    assert seconds_and_hours(many["train"])[0] == pytest.approx(300 * num_train / 2, rel=0.01)
    monkeypatch.setattr(forecasting, "_decode_s", lambda *_: 0.1)
    slow = plan(config, capsys)
    # A CPU that decodes for as long as it scores takes twice as long; all images are decoded once.
    assert seconds_and_hours(slow["score"])[0] == pytest.approx(2 * num_train / 20, rel=0.01)
    threads = os.cpu_count()
    assert seconds_and_hours(slow["decode"])[0] == pytest.approx(1797 * 0.1 / threads, rel=0.02)
    both = plan(config, capsys, "--sweep.networks", "linear", "mlp")
    assert "24 retrainings" in both["sweep"]
    hours = [seconds_and_hours(said["sweep"])[1] for said in (few, both)]
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.01)


def test_where_a_gpu_is_asked_for_and_none_is_there_the_plan_says_so(config, capsys, ray_session):
    """At once, and with what to do; nothing waits for a GPU that will not come."""
    asked = StudyConfig(
        run=config.run,
        data=config.data,
        train=config.train,
        score=ScoreConfig(device="cuda"),
        select=config.select,
        sweep=SweepConfig(gpus_per_worker=1.0),
    )
    assert job(asked, None, ["--plan", "--prepare"]) == 1
    assert "GPU" in capsys.readouterr().err


def test_a_plan_counts_only_the_retrainings_that_are_left(config, capsys, ray_session, monkeypatch):
    rates = Rates(step_s=0.0, example_s=1.0, eval_example_s=0.0, trial_s=0.0, start_s=0.0)
    monkeypatch.setattr(
        forecasting, "calibrate", lambda networks, *_: dict.fromkeys(networks, rates)
    )
    monkeypatch.setattr(forecasting, "scoring_rate", lambda *_: 10.0)
    job(config, None, ["--prepare"])
    layout = RunLayout(config.run)
    for seed in (0, 1):
        row = {
            "trial": f"t{seed}", "network": "linear", "protocol": "equal_epochs",
            "method": "random", "keep_fraction": 0.05, "seed": seed, "ended_early": False,
        }  # fmt: skip
        write_row(layout.sweep, row)
    assert "10 retrainings of 12, the others are finished" in plan(config, capsys)["sweep"]


def test_scoring_is_measured_in_the_batches_of_the_job():
    """As many as memory holds, or as many as are asked for; one rule for the job and its plan."""
    network = build_network("cnn", ImageSpec(1, 28, 28, 10), 0).eval()
    shape = (1, 28, 28)
    assert batch_size_for(48, network, shape, "cpu", 1) == 48
    within = batch_size_within(pass_budget("cpu", 1), bytes_each(network, shape))
    assert batch_size_for(0, network, shape, "cpu", 1) == within
