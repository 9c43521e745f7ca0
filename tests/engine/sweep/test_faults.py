"""Whatever dies in a sweep, its table is that of an undisturbed one, trial by trial."""

import dataclasses
import functools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.config import SweepConfig
from raygrad.engine.sweep import job as sweep_engine
from raygrad.runs.layout import RunLayout
from raygrad.training.trials import positions_of, retrain
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
@pytest.mark.long
def test_a_node_lost_in_mid_sweep_changes_nothing(tmp_path):
    layout = RunLayout(str(tmp_path / "run"))
    network = faulty_networks.name("slow", tmp_path, 0)
    trials = make_trials(layout, make_data(), network=network, seeds=(0, 1, 2), budgets=(90,))
    is_time = functools.partial(has_files, tmp_path / "run/sweep/trials", "*.json", 1)
    losing_a_node(run, is_time, layout, trials)
    assert comparable(pq.read_table(layout.results)) == retrained(make_data(), trials)


def test_trials_of_two_workers_follow_those_of_one_and_survive_the_loss_of_each(
    ray_session, tmp_path
):
    """SIGKILL of rank 0's process, and of rank 1's, in the middle: the same bits as without."""
    faults = tmp_path / "faults"
    faults.mkdir()
    network = faulty_networks.name("kills_ranks", faults, 2)
    tables = []
    for name in ("disturbed", "undisturbed"):  # in the second, the faults are used up
        layout = RunLayout(str(tmp_path / name))
        trials = make_trials(layout, make_data(), network=network, budgets=(90,))
        tables.append(comparable(run(layout, trials, workers_per_trial=2)))
        assert len(list(faults.iterdir())) == 2
    assert tables[0] == tables[1]
    for row, alone in zip(tables[0], retrained(make_data(), trials), strict=True):
        assert (row["num_workers"], alone["num_workers"]) == (2, 1)
        assert row["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-4)
        for name in ("trial", "test_accuracy", "best_epoch", "steps", "examples_seen"):
            assert row[name] == alone[name]


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
