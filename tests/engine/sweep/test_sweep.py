"""Sweeps: rows as trials end, retries, kills, and only what is missing is run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.config import SweepConfig
from raygrad.engine.sweep import job as sweep_engine
from raygrad.engine.sweep import watch
from raygrad.engine.sweep.trial_process import state_url
from raygrad.errors import IncompleteError, ResourceError
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import RESULT_SCHEMA, write_row
from raygrad.training.retraining import positions_of, retrain
from raygrad.training.trial import name_of
from tests.engine.score import faulty_networks
from tests.engine.sweep.sweeping import COMPARED, RECIPE, comparable, make_data, make_trials

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def data():
    return make_data()


def run(layout, data, trials, **config):
    return sweep_engine.sweep(SweepConfig(**config), RECIPE, trials, layout, lambda: data)


def test_a_sweep_gives_what_bare_training_gives(tmp_path, data):
    """Every row equals a plain call of `retrain` in this process, whatever ran beside it."""
    layout = RunLayout(str(tmp_path))
    trials = make_trials(layout, data)
    found = comparable(run(layout, data, trials))
    keys = pa.array(data.train.keys)
    expected = []
    for trial, url in trials:
        subset = pq.read_table(url)["key"].combine_chunks()
        expected.append(retrain(trial, positions_of(subset, keys), RECIPE, data))
    expected.sort(key=lambda row: (row["keep_fraction"], row["seed"]))
    assert found == [{name: row[name] for name in COMPARED} for row in expected]


def test_what_a_trial_warns_of_is_said_to_who_started_the_sweep(tmp_path, data, caplog):
    """Its own lines stay in Ray's files, on its node."""
    layout = RunLayout(str(tmp_path))
    trials = make_trials(layout, data, seeds=(0,), budgets=(40,))
    state = Path(state_url(layout.sweep, trials[0][0]))
    state.parent.mkdir(parents=True)
    state.write_bytes(b"cut off")
    assert run(layout, data, trials).num_rows == 1
    (line,) = [line for line in caplog.messages if "saved state" in line]
    assert line.startswith(
        f"sweep: {name_of(trials[0][0])}: the saved state {state} cannot be read"
    )
    assert line.endswith("it begins anew")


def test_later_trials_alone_are_run_and_the_table_gains_each_as_it_ends(
    tmp_path, data, monkeypatch
):
    layout = RunLayout(str(tmp_path))
    sizes = []
    note = watch.Watch._note

    def spy(self, *arguments):
        sizes.append(pq.read_table(layout.results).num_rows)
        note(self, *arguments)

    monkeypatch.setattr(watch.Watch, "_note", spy)
    first = run(layout, data, make_trials(layout, data, seeds=(0,)))
    times = {row["trial"]: row["train_time_s"] for row in first.to_pylist()}
    both = run(layout, data, make_trials(layout, data, seeds=(0, 1))).to_pylist()
    assert sizes == [1, 2, 3, 4]
    kept = {row["trial"]: row["train_time_s"] for row in both if row["trial"] in times}
    assert kept == times, "a finished trial was run again"

    def refuse():
        raise AssertionError("the data set was loaded for a sweep that is complete")

    again = sweep_engine.sweep(
        SweepConfig(), RECIPE, make_trials(layout, data, seeds=(0, 1)), layout, refuse
    )
    assert again.to_pylist() == both


def test_a_trial_that_is_killed_in_mid_training_changes_nothing(tmp_path, data):
    """SIGKILL of two trial processes leaves the table of an undisturbed sweep."""
    faults = tmp_path / "faults"
    faults.mkdir()
    network = faulty_networks.name("kills", faults, times=2)
    tables = []
    for folder in ("disturbed", "undisturbed"):  # in the second, the faults are used up
        layout = RunLayout(str(tmp_path / folder))
        tables.append(run(layout, data, make_trials(layout, data, network=network), max_failures=2))
        assert len(list(faults.iterdir())) == 2
    assert comparable(tables[0]) == comparable(tables[1])


def test_a_trial_that_always_fails_is_listed_with_its_reason_and_the_rest_is_kept(tmp_path, data):
    layout = RunLayout(str(tmp_path))
    faults = tmp_path / "faults"
    faults.mkdir()
    good = make_trials(layout, data, seeds=(0,))
    bad = make_trials(
        layout, data, network=faulty_networks.name("raises", faults, 99), seeds=(1,), budgets=(40,)
    )
    with pytest.raises(IncompleteError, match=r"1 of 3 that failed.*broken on purpose"):
        run(layout, data, [*bad, *good], max_failures=1)
    assert len(list(faults.iterdir())) == 2, "the first attempt and one retry"
    (failed,) = pq.read_table(Path(layout.sweep, "failed.parquet")).to_pylist()
    assert failed["attempts"] == 2
    assert "broken on purpose" in failed["reason"]
    assert pq.read_table(layout.results).num_rows == 2, "finished trials are in the table"


def test_a_trial_that_was_ended_early_once_and_fails_now_is_not_finished(tmp_path, data):
    """Its row of then has no accuracy; where trials are not ended early it stands for nothing."""
    layout = RunLayout(str(tmp_path))
    faults = tmp_path / "faults"
    faults.mkdir()
    network = faulty_networks.name("raises", faults, 99)
    ((trial, url),) = make_trials(layout, data, network=network, seeds=(0,), budgets=(40,))
    row = {name: getattr(trial, name, None) for name in RESULT_SCHEMA.names}
    write_row(layout.sweep, {**row, "trial": trial.id, "ended_early": True})
    with pytest.raises(IncompleteError, match=r"1 of 1 that failed.*broken on purpose"):
        run(layout, data, [(trial, url)], max_failures=0)
    (failed,) = pq.read_table(Path(layout.sweep, "failed.parquet")).to_pylist()
    assert failed["trial"] == trial.id


def test_a_trial_larger_than_the_cluster_ends_at_once_with_the_sum(tmp_path, data):
    layout = RunLayout(str(tmp_path))
    trials = make_trials(layout, data)
    with pytest.raises(ResourceError, match="3 workers: 3 x 1 CPU = 3 CPU and room for 2 on 1 n"):
        run(layout, data, trials, workers_per_trial=3)
    with pytest.raises(ResourceError, match=r"1 x 0.5 GPU = 0.5 GPU.*0 GPU"):
        run(layout, data, trials, gpus_per_worker=0.5)
