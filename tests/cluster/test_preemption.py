"""The simulator behind the sizing page, against what can be worked out by hand."""

import importlib.util
import json
import math
import random
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def loaded(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as for a script of that folder
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def preemption():
    return loaded("preemption")


@pytest.fixture(scope="module")
def trials():
    return loaded("trial_preemption")


def test_without_preemptions_the_queue_alone_decides(preemption):
    """Seven shards on three actors are three rounds; uneven ones go to whoever is free."""
    rng = random.Random(0)
    assert preemption.simulate([10.0] * 7, 3, math.inf, 5.0, rng).wall_s == 30.0
    assert preemption.simulate([9.0, 1.0, 1.0, 1.0], 2, math.inf, 5.0, rng).wall_s == 9.0


@pytest.mark.parametrize("mean_life_s", [30.0, 100.0, 1000.0])
@pytest.mark.parametrize("num_actors", [1, 8])
def test_a_shard_takes_what_the_exponential_law_says(preemption, mean_life_s, num_actors):
    """Busy time and losses a shard, with few shards an actor, so that the queue's end counts."""
    shard_s, restart_s, num_shards = 30.0, 7.0, 16
    found = preemption.many(4000, [shard_s] * num_shards, num_actors, mean_life_s, restart_s)
    wasted = statistics.mean(one.wasted_s for one in found) / num_shards
    lost = statistics.mean(one.lost_attempts for one in found) / num_shards
    busy_s = preemption.expected_busy_s(shard_s, mean_life_s)
    assert shard_s + wasted == pytest.approx(busy_s, rel=0.02)
    assert lost == pytest.approx(math.expm1(shard_s / mean_life_s), rel=0.05)
    assert statistics.mean(one.restart_s for one in found) == pytest.approx(
        restart_s * lost * num_shards
    )


def test_one_actor_takes_busy_time_and_restarts_one_after_the_other(preemption):
    found = preemption.many(4000, [30.0] * 4, 1, 100.0, 7.0)
    wall = statistics.mean(one.wall_s for one in found)
    lost = statistics.mean(one.lost_attempts for one in found)
    assert wall == pytest.approx(4 * preemption.expected_busy_s(30.0, 100.0) + 7 * lost, rel=0.02)


def sweeps(trials, runs, work_s, mean_life_s, restart_s, saves, places=1):
    rng = random.Random(0)
    return [
        trials.simulate_trials(work_s, places, mean_life_s, restart_s, saves, rng)
        for _ in range(runs)
    ]


def test_without_losses_a_sweep_takes_its_work_and_its_saves(trials):
    saves = trials.Saves(10.0, 0.5)
    (one,) = sweeps(trials, 1, [35.0], math.inf, 7.0, saves)
    assert one.wall_s == 35.0 + 3 * 0.5
    (two,) = sweeps(trials, 1, [30.0, 20.0, 10.0], math.inf, 7.0, trials.Saves(math.inf, 9.0), 2)
    assert two.wall_s == 30.0


@pytest.mark.parametrize("interval_s", [10.0, 40.0, math.inf])
def test_a_trial_takes_what_the_exponential_law_says_of_each_piece(trials, preemption, interval_s):
    """Work between two saves is a shard: with 120 s of it, losses every 60 s and saves of 1 s."""
    work_s, life_s, restart_s = 120.0, 60.0, 5.0
    cost_s = 0.0 if math.isinf(interval_s) else 1.0
    found = sweeps(trials, 4000, [work_s], life_s, restart_s, trials.Saves(interval_s, cost_s))
    pieces = 1 if math.isinf(interval_s) else int(work_s / interval_s)
    each_s = work_s / pieces
    busy_s = (pieces - 1) * preemption.expected_busy_s(each_s + cost_s, life_s)
    busy_s += preemption.expected_busy_s(each_s, life_s)  # the last one saves nothing
    lost = (pieces - 1) * math.expm1((each_s + cost_s) / life_s) + math.expm1(each_s / life_s)
    wall = statistics.mean(one.wall_s for one in found)
    assert statistics.mean(one.lost_attempts for one in found) == pytest.approx(lost, rel=0.05)
    assert wall == pytest.approx(busy_s + restart_s * lost, rel=0.05)


def test_costs_take_what_was_measured_of_saves_and_restarts(trials, monkeypatch, tmp_path):
    """Medians of every save, of every kill, and what of a restart comes after the kill's gap."""
    saves = [{"copy_s": c, "restore_s": r} for c, r in ((9.0, 5.0), (1.0, 3.0), (2.0, 4.0))]
    kills = [{"restart_s": 2.5, "restarts_s": [1.0, 1.0, 4.0]}]
    for name, rows in ((trials.SAVING, saves), (trials.KILLS, kills)):
        (tmp_path / name).write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(trials, "RECORDS", tmp_path)
    found = trials.measured()
    assert (found.save_s, found.begin_s, found.restore_s) == (2.0, 1.5, 4.0)
    assert found.restart_s == 5.5


def test_the_records_of_measured_costs_are_there(trials):
    found = trials.measured()
    assert 0 < found.save_s < found.restart_s < 60
