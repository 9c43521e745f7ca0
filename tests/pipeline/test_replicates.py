"""Scoring networks as replicates: trained, scored, drawn by and retrained on, each for itself."""

import dataclasses
import json
from pathlib import Path

import pytest

from raygrad import pipeline
from raygrad.errors import ConfigError
from raygrad.pipeline.replicates import (
    compared_networks,
    replicate_name,
    replicates,
    trained_replicates,
)
from raygrad.report.results import panels_of, trials_of
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import read_score_table
from raygrad.runs.subsets import read_subset
from raygrad.training.trial import Trial, replicate_seed
from tests.cases import make_tiny_config

pytestmark = pytest.mark.timeout(900)  # two whole studies in a fixture


def changed(config, section, **values):
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **values)}
    )


@pytest.fixture(scope="module")
def study(ray_session, tmp_path_factory):
    """A study by its own network, then by two scoring networks; and the results of both."""
    config = make_tiny_config(tmp_path_factory.mktemp("study"))
    config = changed(config, "select", keep_fractions=(0.1, 1.0), seeds=(0,))
    config = changed(config, "select", methods=("random", "max_gradient", "gradient_cdf"))
    config = changed(config, "sweep", protocols=("equal_epochs",))
    alone = pipeline.run(config)
    # As a sweep of before there were scoring seeds: rows do not say from which seed.
    for path in Path(config.run, "sweep", "trials").glob("*.json"):
        row = json.loads(path.read_text())
        del row["score_seed"]
        path.write_text(json.dumps(row))
    Path(config.run, "sweep", "results.parquet").unlink()
    both = changed(config, "select", score_seeds=(config.train.seed, 7))
    return both, alone, pipeline.run(both)


def test_each_scoring_network_is_trained_and_scored_from_its_own_seed(study):
    config, _, _ = study
    layout, other = RunLayout(config.run), "linear-seed7"
    losses = [
        json.loads(Path(layout.metrics(name)).read_text())["history"][0]["train_loss"]
        for name in ("linear", other)
    ]
    assert losses[0] != losses[1]
    tables = [read_score_table(layout.scores(name)) for name in ("linear", other)]
    assert sorted(tables[0]["key"].to_pylist()) == sorted(tables[1]["key"].to_pylist())
    assert not tables[0]["loss"].equals(tables[1]["loss"])


def test_the_trials_of_the_runs_own_network_are_kept_and_those_of_the_other_added(study):
    """A row of before tells its scoring network now; each replicate has seeds of its own."""
    config, alone, results = study
    rows = {row["trial"]: row for row in results.to_pylist()}
    assert {row["trial"] for row in alone.to_pylist()} < set(rows)
    assert results.num_rows == 2 * alone.num_rows
    for row in alone.to_pylist():
        assert rows[row["trial"]] | {"score_seed": config.train.seed} == rows[row["trial"]]
        assert rows[row["trial"]]["test_accuracy"] == row["test_accuracy"]
    of_other = [row for row in rows.values() if row["score_seed"] == 7]
    assert len(of_other) == alone.num_rows
    assert {row["score_network"] for row in rows.values()} == {"linear"}
    for name in ("subset_seed", "init_seed", "order_seed"):
        assert len({row[name] for row in rows.values()}) == 2


def test_subsets_of_two_scoring_networks_are_drawn_by_each_ones_own_scores(study):
    config, _, _ = study
    layout = RunLayout(config.run)
    urls = pipeline.subset_urls(config)
    assert len(urls) == len(set(urls)) == 8
    (url,) = [u for u in urls if "max_gradient" in u and "seed7" in u]
    subset, origin = read_subset(url)
    table = read_score_table(layout.scores("linear-seed7")).to_pandas()
    hardest = table.nlargest(subset.num_rows, config.select.score_column)
    assert set(subset["key"].to_pylist()) == set(hardest.key)
    assert (origin["score_network"], origin["score_seed"], origin["seed"]) == ("linear", 7, 0)
    draws = [set(read_subset(u)[0]["key"].to_pylist()) for u in urls if "random-0.1" in u]
    assert draws[0] != draws[1]


def test_the_report_takes_its_intervals_over_the_scoring_networks(study):
    config, alone, results = study
    (panel,) = panels_of(trials_of(results))
    assert panel.score_network_counts == (2, 2)
    assert {p.interval.n for of in panel.curves.values() for p in of} == {2}
    (panel,) = panels_of(trials_of(alone))
    assert panel.score_network_counts == (1, 1)
    page = Path(config.run, "report", "index.html").read_text()
    assert "Over 2 scoring networks: " in page


def test_the_same_command_again_runs_nothing(study, caplog):
    config, _, results = study
    with caplog.at_level("INFO"):
        again = pipeline.run(config)
    assert again.equals(results)
    assert "train-linear-seed7: complete, skipped" in caplog.text
    assert "select: complete, skipped" in caplog.text


def test_a_trial_of_the_runs_own_network_has_the_name_and_seeds_it_always_had():
    trial = Trial("cnn", "cnn", "loss", "max_gradient", 0.1, 9, 3, "equal_epochs", "s", "c")
    assert trial.id == dataclasses.replace(trial, score_seed=0).id == "4eb1c48c2bb4bbdf"
    other = dataclasses.replace(trial, score_seed=5, score_replicate=5)
    assert other.id != trial.id
    assert other.derived_seed("init") == replicate_seed("init", 3, 5) != trial.derived_seed("init")
    assert (trial.subset_seed, other.subset_seed) == (3, replicate_seed("draw", 3, 5))


def test_checkpoints_of_ones_own_network_are_scoring_networks_by_their_numbers(tiny_config):
    own = changed(tiny_config, "score", network="linear", checkpoint=("a.pt", "b.pt"))
    both = changed(own, "select", score_seeds=(0, 1))
    assert [r.checkpoint for r in replicates(both, own, "linear")] == [0, 1]
    assert trained_replicates(both) == []
    with pytest.raises(ConfigError, match=r"their numbers, from 0 to 1, got \(0, 2\)"):
        replicates(changed(own, "select", score_seeds=(0, 2)), own, "linear")
    one = changed(tiny_config, "score", network="linear", checkpoint=("a.pt",))
    with pytest.raises(ConfigError, match="trained here or several checkpoints"):
        trained_replicates(changed(one, "select", score_seeds=(0, 1)))


def test_dynamics_of_another_seed_stand_beside_its_network():
    assert replicate_name("cnn-dynamics", 4) == "cnn-seed4-dynamics"


@pytest.mark.parametrize("seeds", [(0, 0), (-1,)])
def test_impossible_score_seeds_are_refused(tiny_config, seeds):
    with pytest.raises(ConfigError, match="score_seeds must"):
        changed(tiny_config, "select", score_seeds=seeds)


def test_compared_networks_have_the_recipe_but_for_what_follows_the_own_one(tiny_config):
    """Each is its own network under the run's recipe; none draws subsets or has replicates."""
    followed = changed(tiny_config, "train", dynamics=True, probe_size=8)
    own = followed.train.network
    both = changed(followed, "select", compare_networks=(own, "mlp"), score_seeds=(0, 7))
    ((other, name),) = compared_networks(both)
    assert name == other.train.network == "mlp"
    assert other.train == dataclasses.replace(followed.train, network="mlp", dynamics=False)
    assert other.select == followed.select
    assert compared_networks(other) == []
    with pytest.raises(ConfigError, match="compare_networks must not repeat a name"):
        changed(followed, "select", compare_networks=("mlp", "mlp"))
