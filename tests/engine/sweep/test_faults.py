"""Whatever dies in a sweep, its table is that of an undisturbed one, trial by trial."""

import dataclasses
import functools
import multiprocessing
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from raygrad.config import SweepConfig
from raygrad.engine.sweep import group
from raygrad.engine.sweep import job as sweep_engine
from raygrad.errors import IncompleteError
from raygrad.runs.layout import RunLayout
from raygrad.training.retraining import positions_of, retrain
from tests.engine.lost_nodes import has_files, losing_a_node
from tests.engine.score import faulty_networks
from tests.engine.sweep.sweeping import COMPARED, RECIPE, comparable, make_data, make_trials

pytestmark = pytest.mark.timeout(900)

LONGER = dataclasses.replace(RECIPE, epochs=12, patience=12)


def run(layout, trials, recipe=LONGER, **config):
    return sweep_engine.sweep(SweepConfig(**config), recipe, trials, layout, make_data)


def retrained(data, trials):
    """What bare calls of `retrain` in this process give, in the order of the table."""
    keys = pa.array(data.train.keys)
    rows = []
    for trial, url in trials:
        subset = pq.read_table(url)["key"].combine_chunks()
        rows.append(retrain(trial, positions_of(subset, keys), LONGER, data))
    rows.sort(key=lambda row: (row["keep_fraction"], row["seed"]))
    return [{name: row[name] for name in COMPARED} for row in rows]


@pytest.mark.slow
@pytest.mark.long(seconds=20)
def test_a_node_lost_in_mid_sweep_changes_nothing(tmp_path):
    layout = RunLayout(str(tmp_path / "run"))
    network = faulty_networks.name("slow", tmp_path, 0)
    trials = make_trials(layout, make_data(), network=network, seeds=(0, 1, 2), budgets=(90,))
    is_time = functools.partial(has_files, tmp_path / "run/sweep/trials", "*.json", 1)
    losing_a_node(run, is_time, layout, trials)
    assert comparable(pq.read_table(layout.results)) == retrained(make_data(), trials)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_killed_at_three_seeded_moments_goes_on_and_changes_nothing(
    ray_session, tmp_path, workers
):
    """SIGKILL of rank 0's process, of the last rank's and of rank 0's again.

    The same bits as without, and more kills survived than attempts without progress are allowed.
    Each time at most the epoch of six steps is lost that it died in, and the one before, whose
    state was still being written beside the loop.
    """
    faults = tmp_path / "faults"
    faults.mkdir()
    network = faulty_networks.name("killed_at", faults, workers)
    tables, steps = [], []
    for name in ("disturbed", "undisturbed"):  # in the second, the faults are used up
        layout = RunLayout(str(tmp_path / name))
        trials = make_trials(layout, make_data(), network=network, seeds=(0,), budgets=(90,))
        config = {"workers_per_trial": workers, "save_interval_s": 0.0, "max_failures": 0}
        tables.append(comparable(run(layout, trials, **config)))
        assert not Path(layout.sweep, "states").exists()
        assert len(list(faults.glob("*.fault"))) == 3
        steps.append(faulty_networks.steps_done(faults))
    assert tables[0] == tables[1]
    needed, (row,) = steps[1] - steps[0], tables[0]
    assert needed == row["steps"]
    assert 0 < steps[0] - needed <= 3 * 13, "two epochs, and the step that it died in"
    (alone,) = retrained(make_data(), trials)
    assert (row["num_workers"], alone["num_workers"]) == (workers, 1)
    assert row["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-4)
    for name in ("trial", "test_accuracy", "best_epoch", "steps", "examples_seen"):
        assert row[name] == alone[name]


@pytest.mark.slow
def test_an_error_of_one_rank_alone_begins_all_of_them_again_at_once(ray_session, tmp_path):
    """The other waits for it in a sum over ranks, and is not left there until its timeout."""
    faults = tmp_path / "faults"
    faults.mkdir()
    network = faulty_networks.name("raises", faults, 1)
    rows, took_s = [], []
    for name in ("disturbed", "undisturbed"):
        layout = RunLayout(str(tmp_path / name))
        trials = make_trials(layout, make_data(), network=network, seeds=(0,), budgets=(90,))
        begun_s = time.monotonic()
        rows.append(comparable(run(layout, trials, workers_per_trial=2, max_failures=1)))
        took_s.append(time.monotonic() - begun_s)
    assert len(list(faults.glob("*.fault"))) == 1
    assert rows[0] == rows[1]
    assert took_s[0] - took_s[1] < group.TIMEOUT.total_seconds() / 4


def _driver(address, folder, trials):
    """A driver of its own on the session's Ray."""
    ray.init(address=address, logging_level=40, log_to_driver=False)
    run(RunLayout(str(folder)), trials, max_concurrent=1, save_interval_s=0.0)


@pytest.mark.slow
def test_a_driver_that_is_killed_in_mid_trial_loses_an_epoch_at_most(ray_session, tmp_path):
    """SIGKILL once a trial has saved its state; the next driver goes on with it."""
    faults, folder = tmp_path / "faults", tmp_path / "run"
    faults.mkdir()
    for at in range(3):
        (faults / f"{at}.fault").touch()  # it counts its steps, and never kills itself
    network = faulty_networks.name("killed_at", faults, 0)
    trials = make_trials(
        RunLayout(str(folder)), make_data(), network=network, seeds=(0,), budgets=(90,)
    )
    address = ray.get_runtime_context().gcs_address
    driver = multiprocessing.get_context("spawn").Process(
        target=_driver, args=(address, folder, trials)
    )
    driver.start()
    until_s = time.monotonic() + 120
    while not list(folder.rglob("*.state")):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    driver.kill()
    driver.join()
    found = comparable(run(RunLayout(str(folder)), trials, save_interval_s=0.0))
    (expected,) = retrained(make_data(), trials)
    assert found == [expected]
    steps = faulty_networks.steps_done(faults) - expected["steps"]  # those of `retrained` too
    assert expected["steps"] <= steps <= expected["steps"] + 7


def test_a_recipe_that_diverges_is_not_tried_again(ray_session, tmp_path):
    layout = RunLayout(str(tmp_path))
    trials = make_trials(layout, make_data(), network="mlp", seeds=(0,), budgets=(90,))
    hopeless = dataclasses.replace(LONGER, learning_rate=1e30)
    with pytest.raises(IncompleteError, match="training loss must stay finite"):
        run(layout, trials, hopeless, max_failures=5)
    (failed,) = pq.read_table(Path(layout.sweep, "failed.parquet")).to_pylist()
    assert failed["attempts"] == 1


def test_hopeless_trials_are_ended_early_by_choice_and_run_to_their_end_without(
    ray_session, tmp_path
):
    """Two images cannot teach three classes: such trials are behind those of 200 at every rung."""
    layout = RunLayout(str(tmp_path))
    trials = make_trials(layout, make_data(), seeds=(0, 1, 2, 3), budgets=(2, 200))
    rows = run(layout, trials, early_termination="asha").to_pylist()
    ended = [row for row in rows if row["ended_early"]]
    finished = [row for row in rows if not row["ended_early"]]
    assert 2 in {row["budget"] for row in ended}
    assert 200 in {row["budget"] for row in finished}
    best = max(row["val_accuracy"] for row in finished)
    assert all(row["val_accuracy"] <= best for row in ended)
    assert all(row["test_accuracy"] is None and row["epochs"] < 12 for row in ended)
    again = run(layout, trials, early_termination="no")
    assert comparable(again) == retrained(make_data(), trials)
