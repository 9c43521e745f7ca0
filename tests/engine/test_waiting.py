"""What a stage waits for is said, bounded by a flag, and refused where it can never come."""

import logging
import re
import threading
from types import SimpleNamespace

import pytest
import ray

from raygrad.config import ScoreConfig, SweepConfig, TrainConfig
from raygrad.engine import nodes, waiting
from raygrad.engine.nodes import Offer
from raygrad.engine.parallel import ray_map
from raygrad.engine.placement import place_scoring, place_sweep
from raygrad.engine.score.job import score
from raygrad.engine.sweep import calibrate as calibrating
from raygrad.engine.sweep.calibrate import calibrate, scoring_rate
from raygrad.engine.sweep.job import sweep
from raygrad.engine.train.job import train
from raygrad.engine.waiting import Need, Waiting, check_ever, offer, wait_for, watched
from raygrad.errors import IncompleteError, ResourceError
from raygrad.runs.layout import RunLayout
from tests.engine.score.scoring_cases import make_shards
from tests.engine.score.scoring_cases import make_task as make_score_task
from tests.engine.sweep.sweeping import RECIPE, make_data, make_trials
from tests.engine.train.training_tasks import make_task

BOUND_S = 4.0
SAID = r"{}: waits for {}; the cluster has 2 CPU \([\d.]+ free\); \d+ s so far"


@pytest.fixture
def lines(caplog, monkeypatch):
    """What was logged so far; a stage that waits says so every second."""
    monkeypatch.setattr(waiting, "SAY_S", 1.0)
    monkeypatch.setattr(waiting, "_FIRST_S", 1.0)
    caplog.set_level(logging.INFO, "raygrad")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def held(ray_session):
    """Returns a function that holds so many of the two CPUs, and one that gives them back."""
    holders = []

    def hold(cpus):
        holders.append(ray.remote(num_cpus=cpus)(_Holder).remote())
        ray.get(holders[-1].there.remote())

    def release():
        while holders:
            ray.kill(holders.pop())

    yield hold, release
    release()


class _Holder:
    def there(self):
        return True


def run_train(folder, wait_s):
    train(make_task(folder, TrainConfig(**{**vars(RECIPE), "num_workers": 2})), make_data(), wait_s)


def run_sweep(folder, wait_s):
    layout, data = RunLayout(str(folder)), make_data()
    trials = make_trials(layout, data, seeds=(0,), budgets=(40,))
    sweep(SweepConfig(), RECIPE, trials, layout, lambda: data, wait_s)


def run_score(folder, wait_s):
    score(ScoreConfig(columns=("loss",)), make_score_task(folder, make_shards(folder)), wait_s)


def run_map(folder, wait_s):
    list(ray_map(str, range(3), stage="index", wait_s=wait_s))


def two(place, config, nodes=1):
    """Returns what is decided for so many nodes of two CPUs."""
    return place(config, Offer([{"CPU": 2.0}] * nodes))


def run_calibrate(folder, wait_s):
    calibrate(("linear",), RECIPE, make_data(), two(place_sweep, SweepConfig()), 0.2, wait_s)


def run_scoring_rate(folder, wait_s):
    placed = two(place_scoring, ScoreConfig())
    scoring_rate(ScoreConfig(), "linear", placed, make_data(), 0.2, wait_s)


@pytest.mark.parametrize(
    ("run", "stage", "need"),
    [
        (run_train, "train", "2 x 1 CPU"),
        (run_sweep, "sweep", "1 CPU"),
        (run_score, "score", "0.9 CPU"),
        (run_map, "index", "1 CPU"),
        (run_calibrate, "plan", "1 CPU"),
        (run_scoring_rate, "plan", "0.9 CPU"),
    ],
)
def test_a_stage_without_room_says_what_it_waits_for_and_ends(
    run, stage, need, held, lines, tmp_path
):
    """All of them, in the same words, on a cluster whose CPUs are held by somebody else."""
    hold, _ = held
    hold(2)
    with pytest.raises(IncompleteError) as error:
        run(tmp_path, BOUND_S)
    said = [line for line in lines() if re.fullmatch(SAID.format(stage, need), line)]
    assert len(said) >= 2
    assert str(error.value).startswith(f"{stage} must find {need} free within {BOUND_S:g} s, got")
    assert "--wait-s" in str(error.value)


def test_what_becomes_free_in_time_is_taken(held, lines):
    hold, release = held
    hold(2)
    threading.Timer(2.5, release).start()
    wait_for("sweep", Need(2, {"CPU": 1.0}), 60.0)
    assert any("sweep: waits for 2 x 1 CPU" in line for line in lines())


def test_what_is_free_is_not_waited_for(ray_session, lines):
    """A bound of nothing is enough for it."""
    wait_for("sweep", Need(1, {"CPU": 1.0}), 0.0)
    assert lines() == []


def test_rates_are_measured_on_what_there_is_where_more_was_promised(held, lines, monkeypatch):
    """One of four trials has room, as where spot nodes do not come: measured on one, and said."""
    monkeypatch.setattr(calibrating, "OTHERS_S", 1.0)
    hold, _ = held
    hold(1)
    rates = calibrate(
        ("linear",), RECIPE, make_data(), two(place_sweep, SweepConfig(), 2), 0.2, 60.0
    )
    # What one more example costs a linear network may be lost in the noise of a step.
    assert rates["linear"].step_s > 0
    assert rates["linear"].example_s >= 0
    assert "plan: measured on 1 trials instead of 4: no more have room" in lines()


def test_what_no_node_can_ever_hold_is_refused_at_once(ray_session):
    """Two CPUs together are not two CPUs on one node, and a GPU is on none."""
    for need in (Need(1, {"CPU": 3.0}), Need(3, {"CPU": 1.0}), Need(1, {"CPU": 1.0, "GPU": 1.0})):
        with pytest.raises(ResourceError, match="the cluster has 2 CPU"):
            check_ever("train", need)


def test_what_is_held_free_and_promised_is_said(monkeypatch):
    living = [{"CPU": 8.0, "GPU": 3.0}, {"CPU": 4.0}]
    monkeypatch.setattr(nodes, "living_nodes", lambda _=None: living)
    monkeypatch.setattr(nodes, "promised_nodes", lambda: [{"CPU": 8.0, "GPU": 1.0}] * 5)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 6.0})
    said = offer(Need(1, {"CPU": 1.0, "GPU": 1.0}))
    assert said == (
        "the cluster has 12 CPU (6 free) and 3 GPU (0 free), may grow by 40 CPU and 5 GPU"
    )


def test_work_that_loses_its_room_is_given_up_after_the_bound(held, lines):
    """As workers of Ray Train that are to be started again on a cluster that has become small."""
    from ray.util.placement_group import placement_group, remove_placement_group

    hold, _ = held
    hold(2)
    group, given_up = placement_group([{"CPU": 1}]), threading.Event()
    try:
        need = Need(1, {"CPU": 1.0})
        with watched(Waiting("train", need, BOUND_S), need, given_up.set) as errors:
            assert given_up.wait(BOUND_S + 10)
    finally:
        remove_placement_group(group)
    assert "train must find 1 CPU free" in str(errors[0])
    assert any(line.startswith("train: waits for 1 CPU") for line in lines())


JOB = "01000000"


@pytest.mark.parametrize(
    ("states", "nodes", "waits"),
    [
        ({"CREATED"}, 1, False),
        ({"CREATED", "PENDING"}, 1, False),
        ({"PENDING"}, 4, True),
        ({"RESCHEDULING", "REMOVED"}, 4, True),
        ({"REMOVED"}, 2, False),
        ({"REMOVED"}, 1, True),
        (set(), 2, False),
        (set(), 1, True),
    ],
)
def test_an_elastic_group_below_its_fewest_workers_waits_though_it_asks_for_no_room(
    states, nodes, waits, monkeypatch
):
    """Ray has no placement group then; nor has it between two groups, which are not waited for."""
    rows = {f"{state}{JOB}": {"state": state} for state in states}
    others = {"of another job": {"state": "CREATED"}}
    context = SimpleNamespace(get_job_id=lambda: JOB)
    monkeypatch.setattr(waiting, "placement_group_table", lambda: rows | others)
    monkeypatch.setattr(waiting.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(waiting, "living_nodes", lambda _: [{"CPU": 1.0}] * nodes)
    assert waiting._is_unplaced(Need(2, {"CPU": 1.0})) is waits


def test_a_bound_of_for_ever_is_none(monkeypatch, lines):
    monkeypatch.setattr(waiting, "offer", lambda _: "the cluster has 0 CPU")
    clock = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])
    patient = Waiting("score", Need(1, {"CPU": 1.0}), float("inf"))
    for _ in range(1000):
        clock[0] += 100.0
        patient.still()
    assert lines()[-1] == "score: waits for 1 CPU; the cluster has 0 CPU; 99900 s so far"
    patient.over()
    assert not patient.is_waiting
