"""Retrainings of several recipes, states of the data or draws never share a mean."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from raygrad import pipeline
from raygrad.config import DataConfig, ScoreConfig, SelectConfig, StudyConfig, TrainConfig
from raygrad.pipeline import forecasting, planning, sweeping
from raygrad.pipeline.settling import others
from raygrad.report import summary_rows
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ASIDE, ResultRows, write_row
from raygrad.training.plan import Sizes
from raygrad.training.trial import Trial
from tests.data.making import example, jpeg, put
from tests.pipeline.making_runs import without_ray

DATA = SimpleNamespace(num_examples={"train": 18, "val": 2, "test": 0}, transform=None)


@pytest.fixture
def accuracy(monkeypatch):
    """What every retraining comes to that is really run, and how many were."""
    state = {"is": 0.5, "ran": 0}

    def engine(config, recipe, trials, layout, load_data, wait_s):
        for trial, _ in sweeping.sweep_engine.missing_trials(
            config, trials, ResultRows(layout.sweep, layout.results)
        ):
            state["ran"] += 1
            row = {**dataclasses.asdict(trial), "trial": trial.id, "test_accuracy": state["is"]}
            row |= {"subset_seed": trial.subset_seed, "ended_early": False, "train_time_s": 1.0}
            write_row(layout.sweep, row | {"num_workers": 1})
        return ResultRows(layout.sweep, layout.results).write()

    without_ray(monkeypatch)
    monkeypatch.setattr(sweeping.sweep_engine, "sweep", engine)
    monkeypatch.setattr(sweeping, "_tell_paybacks", lambda config: None)
    return state


def shard(folder, number):
    members = []
    for at in range(10):
        members += example(f"s{number}-{at}", at % 5 // 3, "jpg", jpeg(100 * number + at, (16, 16)))
    put(folder, f"t-{number:03d}.tar", members)


@pytest.fixture
def scored(tmp_path, accuracy):
    """A run whose two tars a network of fresh weights has scored."""
    (tmp_path / "tars").mkdir()
    for number in range(2):
        shard(tmp_path / "tars", number)
    config = StudyConfig(
        str(tmp_path / "run"),
        data=DataConfig(tars=(f"{tmp_path}/tars/t-*.tar",)),
        train=TrainConfig(network="mlp"),
        score=ScoreConfig(
            network="linear", fresh_weights=True, image_size=16, columns=("loss", "entropy")
        ),
        select=SelectConfig(
            methods=("random", "max_gradient"),
            keep_fractions=(0.4,),
            seeds=(0, 1),
            score_column="loss",
            fresh_scores=True,
        ),
    )
    with pipeline.bound(config):
        pipeline.prepare(config)
        pipeline.score(config)
    return config


def changed(config, section, **values):
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **values)}
    )


def means(results):
    return {row["method"]: (row["mean"], row["trials"]) for row in summary_rows(results)}


def aside(config):
    return len(list(Path(config.run, "sweep", ASIDE).glob("*.json")))


def in_sweep_of(config):
    return next(one for one in pipeline.status(config) if one.stage == "sweep")


def test_retrainings_on_old_and_on_grown_data_are_not_averaged(scored, accuracy, tmp_path, caplog):
    assert means(pipeline.sweep(scored)) == {"random": (0.5, 2), "max_gradient": (0.5, 2)}
    shard(tmp_path / "tars", 2)
    pipeline.index_shards(scored)
    pipeline.score(scored)
    sizes = Sizes(27, 3, 0)
    asked = forecasting._trials(scored, sizes)
    assert len(forecasting._unfinished(scored, asked)) == len(asked) == 4, "none is of these data"
    accuracy["is"] = 0.9
    one = changed(scored, "select", seeds=(0,))
    results = pipeline.sweep(one, redo=True)
    assert means(results) == {"random": (0.9, 1), "max_gradient": (0.9, 1)}
    assert len(set(results["config_digest"].to_pylist())) == 1
    assert aside(scored) == 4
    assert "2 that are not, such as mlp random 0.4 seed 0" in caplog.text


def test_retrainings_by_another_recipe_are_set_aside_and_come_back(scored, accuracy):
    pipeline.sweep(scored)
    shorter = changed(scored, "train", epochs=5, lr_decay_epochs=())
    accuracy["is"] = 0.7
    assert means(pipeline.sweep(shorter)) == {"random": (0.7, 2), "max_gradient": (0.7, 2)}
    assert (aside(scored), accuracy["ran"]) == (4, 8)
    assert means(pipeline.sweep(scored)) == {"random": (0.5, 2), "max_gradient": (0.5, 2)}
    assert (aside(scored), accuracy["ran"]) == (4, 8), "nothing is trained twice"


def test_a_plan_counts_what_comes_back_as_finished(scored, accuracy, monkeypatch):
    pipeline.sweep(scored)
    pipeline.sweep(changed(scored, "train", epochs=5, lr_decay_epochs=()))
    monkeypatch.setattr(planning, "ensure_ray", lambda: None)
    monkeypatch.setattr(
        planning.sweep_engine, "sweep_placement", lambda config: SimpleNamespace(count=1)
    )
    monkeypatch.setattr(planning, "trial_data", lambda config: DATA)
    monkeypatch.setattr(planning, "calibrate", lambda *given: {})
    monkeypatch.setattr(planning, "_rates_key", lambda config: "k")
    monkeypatch.setattr(planning, "_predict", lambda config, stored, todo, epochs: todo)
    monkeypatch.setattr(planning, "_mean_epochs", lambda rows: {})
    more = changed(scored, "select", seeds=(0, 1, 2))
    found = pipeline.plan(more, seconds=0.1)
    assert (found.num_finished, [trial.seed for trial in found.at_most]) == (4, [2, 2])


def test_retrainings_on_subsets_that_were_drawn_otherwise_are_not_averaged(scored, accuracy):
    """Of seeds that are not asked for too: their subsets were drawn the old way."""
    pipeline.sweep(scored)
    even = changed(scored, "select", class_balanced="even", seeds=(0,))
    accuracy["is"] = 0.9
    assert means(pipeline.sweep(even, redo=True)) == {"random": (0.9, 1), "max_gradient": (0.9, 1)}
    assert means(pipeline.sweep(scored, redo=True)) == {
        "random": (0.5, 2),
        "max_gradient": (0.5, 2),
    }
    assert accuracy["ran"] == 6


def test_a_first_draw_by_another_column_leaves_the_retrainings_of_the_first(scored, accuracy):
    pipeline.sweep(scored)
    other = changed(scored, "select", score_column="entropy", methods=("max_gradient",))
    results = pipeline.sweep(other, redo=True)
    assert (results.num_rows, aside(scored)) == (6, 0)


def test_the_status_counts_no_retraining_of_another_recipe(scored, accuracy):
    pipeline.sweep(scored)
    trained = changed(scored, "score", network=None, fresh_weights=False)
    assert in_sweep_of(trained).state == "complete"
    shorter = changed(trained, "train", epochs=5, lr_decay_epochs=())
    assert "0 of 4 retrainings, and 4 of other" in in_sweep_of(shorter).note


def row_of(trial, **values):
    row = {**dataclasses.asdict(trial), "trial": trial.id, "subset_seed": trial.subset_seed}
    return json.loads(json.dumps(row | values))


def test_rows_stay_beside_trials_that_share_no_mean_or_are_of_the_same_draws():
    asked = Trial("cnn", "cnn", "loss", "ccs", 0.1, 9, 0, "equal_epochs", "s", "c")
    kept = [
        row_of(asked),
        row_of(dataclasses.replace(asked, seed=1, subset_digest="t")),
        row_of(dataclasses.replace(asked, score_replicate=3, score_seed=3, subset_digest="u")),
        row_of(dataclasses.replace(asked, score_column="el2n", config_digest="d")),
        row_of(dataclasses.replace(asked, network="mlp", config_digest="d")),
        row_of(dataclasses.replace(asked, keep_fraction=0.2, config_digest="d")),
        row_of(dataclasses.replace(asked, seed=2), config_digest=None),
    ]
    assert others(kept, [asked]) == []
    old = row_of(dataclasses.replace(asked, seed=4, config_digest="d"))
    assert others([*kept, old], [asked]) == [old]
    drawn_otherwise = row_of(dataclasses.replace(asked, subset_digest="v"))
    gone = {row["trial"] for row in others([*kept, drawn_otherwise], [asked])}
    assert gone == {kept[at]["trial"] for at in (1, 2, 6)} | {drawn_otherwise["trial"]}


def test_a_sweep_s_rows_are_moved_on_s3_as_on_disk(s3_url, tmp_path):
    for root in (s3_url, str(tmp_path)):
        layout = RunLayout(root)
        write_row(layout.sweep, {"trial": "a", "method": "random", "keep_fraction": 0.1})
        rows = ResultRows(layout.sweep, layout.results)
        rows.set_aside(["a"])
        assert ResultRows(layout.sweep, layout.results).rows == {}
        rows.take_back(["a", "b"])
        assert set(ResultRows(layout.sweep, layout.results).rows) == {"a"}
        rows.remove(["a"])
        rows.take_back(["a"])
        assert rows.rows == {}
