"""The study as a whole, through the real engines, on the real digits."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from raygrad import pipeline
from raygrad.errors import ConfigError
from raygrad.pipeline import data_ways, planning, preparing, scoring, training
from raygrad.runs import score_table
from raygrad.runs.layout import RunLayout
from raygrad.scoring.numerics import device_name
from raygrad.training.checkpoints import load_checkpoint
from tests.cases import make_tiny_config


@pytest.fixture(scope="module")
def study(ray_session, tmp_path_factory):
    """A finished study, its configuration and its results."""
    config = make_tiny_config(tmp_path_factory.mktemp("study"))
    return config, pipeline.run(config)


def changed(config, section, **values):
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **values)}
    )


def test_every_stage_leaves_its_outputs_where_the_design_says(study):
    config, _ = study
    run = Path(config.run)
    expected = [
        "config.json",
        "data/index.parquet",
        "data/rejects.parquet",
        "train/linear/metrics.json",
        "train/linear/best.pt",
        "scores/linear/_manifest.json",
        "subsets/max_gradient-0.05-1.parquet",
        "sweep/results.parquet",
        "report/index.html",
    ]
    assert [name for name in expected if not (run / name).exists()] == []
    assert len(list((run / "data/shards").glob("train-*.tar"))) > 1
    assert len(list((run / "data/shards").glob("test-*.tar"))) == 1


def test_each_scored_example_has_one_row_and_its_own_gradient_norm(study):
    """The table holds the training split once, and its norms equal single-example autograd's."""
    config, _ = study
    layout = RunLayout(config.run)
    index = pq.read_table(Path(config.run, "data/index.parquet")).to_pandas()
    table = score_table.read_score_table(layout.scores("linear")).to_pandas()
    train_keys = index[index.split == "train"].key
    assert sorted(table.key) == sorted(train_keys)
    data = data_ways.study_data(layout, config.data)
    checkpoint = load_checkpoint(layout.checkpoint("linear"))
    network = checkpoint.build()
    position = {key: at for at, key in enumerate(data.train.keys)}
    for row in table.sample(20, random_state=0).itertuples():
        at = position[row.key]
        image = checkpoint.normalize(torch.from_numpy(data.train.images[at : at + 1]))
        label = torch.from_numpy(data.train.labels[at : at + 1])
        loss = F.cross_entropy(network(image), label)
        (gradient,) = torch.autograd.grad(loss, [network[1].weight])
        assert row.label == label.item()
        assert row.loss == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        assert row.grad_l2_weights == pytest.approx(gradient.norm().item(), rel=1e-4, abs=1e-6)
        assert row.grad_l2_last_layer_weights == pytest.approx(row.grad_l2_weights, rel=1e-4)


def test_every_stage_says_what_computed_it_and_how(study):
    """The score table's manifest, the checkpoint and every trial's row."""
    config, _ = study
    layout = RunLayout(config.run)
    manifest = json.loads(Path(layout.scores("linear"), "_manifest.json").read_text())
    device = device_name("cpu")
    assert manifest["numerics"] == "exact"
    assert manifest["devices"] == {device: len(manifest["shards"])}
    said = {"numerics": "exact", "device": device, "torch": torch.__version__}
    assert load_checkpoint(layout.checkpoint("linear")).computed_by == said
    rows = pq.read_table(layout.results).select(["numerics", "device_name", "torch"])
    assert {tuple(row.values()) for row in rows.to_pylist()} == {tuple(said.values())}


@pytest.mark.parametrize(
    "ways", [("auto", "stream"), pytest.param(("stream", "disk"), marks=pytest.mark.slow)]
)
def test_data_on_the_nodes_disk_or_streamed_give_the_same_bits(study, tmp_path, ways, caplog):
    """Training, dynamics and retraining from files or shards equal those from memory."""
    config, results = study
    cache = tmp_path / "cache"
    mapped = changed(config, "data", memory_bytes=0, cache_dir=str(cache))
    mapped = changed(mapped, "train", data=ways[0])
    mapped = changed(mapped, "sweep", data=ways[1])
    mapped = dataclasses.replace(mapped, run=str(tmp_path / "run"))
    with caplog.at_level("INFO", "raygrad"):
        found = pipeline.run(mapped)
    assert "decoded every epoch and not kept: as asked" in caplog.text
    assert len(list(cache.rglob("*.npy"))) == 3
    weights, expected = (
        torch.load(RunLayout(c.run).checkpoint("linear"), weights_only=True)["weights"]
        for c in (mapped, config)
    )
    for name, values in expected.items():
        assert torch.equal(weights[name], values)
    assert found.num_rows == results.num_rows
    order = [("trial", "ascending")]
    for column in ("trial", "test_accuracy", "test_loss", "best_epoch", "examples_seen"):
        assert found.sort_by(order)[column].equals(results.sort_by(order)[column])


def test_max_gradient_keeps_the_hardest(study):
    config, _ = study
    layout = RunLayout(config.run)
    table = score_table.read_score_table(layout.scores("linear")).to_pandas()
    subset = pq.read_table(layout.subset("max_gradient", 0.05, 0)).to_pandas()
    budget = round(0.05 * len(table))
    hardest = table.nlargest(budget, "grad_l2_last_layer_weights")
    assert set(subset.key) == set(hardest.key)
    assert list(subset["rank"]) == list(range(budget))


def test_the_sweep_holds_one_row_a_trial_and_both_protocols(study):
    _, results = study
    rows = results.to_pandas()
    cells = rows[["method", "keep_fraction", "seed", "protocol"]]
    expected = {
        (method, fraction, seed, protocol)
        for method, fraction in [("random", 0.05), ("max_gradient", 0.05), ("random", 1.0)]
        for seed in (0, 1)
        for protocol in ("equal_epochs", "equal_steps")
    }
    assert {tuple(row) for row in cells.to_numpy().tolist()} == expected
    assert len(rows) == len(expected)
    small = rows[rows.keep_fraction == 0.05]
    assert (
        small[small.protocol == "equal_steps"].steps.min()
        > small[small.protocol == "equal_epochs"].steps.max()
    )
    seeds = rows[["init_seed", "order_seed"]].to_numpy()
    assert len(np.unique(seeds)) == 4, "two replicates, two purposes: four seeds"


def test_full_data_retraining_is_close_to_the_trained_network(study):
    config, results = study
    metrics = json.loads(Path(config.run, "train/linear/metrics.json").read_text())
    full = results.to_pandas().query("keep_fraction == 1.0 and protocol == 'equal_epochs'")
    assert metrics["test_accuracy"] > 0.9
    assert full.test_accuracy.mean() == pytest.approx(metrics["test_accuracy"], abs=0.04)


def test_the_reported_test_accuracy_is_the_early_stopped_epochs(study):
    """The checkpoint's own accuracy is what metrics.json reports, and its epoch is validation's."""
    config, _ = study
    layout = RunLayout(config.run)
    metrics = json.loads(Path(config.run, "train/linear/metrics.json").read_text())
    by_validation = [(row["val_accuracy"], -row["val_loss"]) for row in metrics["history"]]
    assert metrics["best_epoch"] == by_validation.index(max(by_validation)) + 1
    assert all("test" not in name for row in metrics["history"] for name in row)
    data = data_ways.study_data(layout, config.data)
    network = load_checkpoint(layout.checkpoint("linear")).build()
    images = data.normalize(torch.from_numpy(data.test.images))
    correct = network(images).argmax(1).numpy() == data.test.labels
    assert metrics["test_accuracy"] == pytest.approx(correct.mean())


def test_a_second_run_does_nothing_and_gives_the_same_table(study, monkeypatch, caplog):
    config, results = study
    for module in (preparing, training, scoring):
        monkeypatch.setattr(module, "ensure_ray", lambda: pytest.fail("Ray was started"))
    with caplog.at_level(logging.INFO, "raygrad"):
        again = pipeline.run(config)
    assert again.equals(results)
    assert "train-linear: complete, skipped" in caplog.text


def test_more_seeds_later_run_only_the_new_trials(study, caplog):
    config, results = study
    grown = changed(config, "select", seeds=(0, 1, 2))
    pipeline.bind(grown)
    pipeline.select(grown)
    with caplog.at_level(logging.INFO, "raygrad"):
        more = pipeline.sweep(grown)
    assert "sweep: 12 of 18 trials are finished" in caplog.text
    old = set(results["trial"].to_pylist())
    kept = more.filter([row in old for row in more["trial"].to_pylist()])
    assert kept.equals(results)


def test_a_lost_part_is_scored_again_and_nothing_else(study):
    config, _ = study
    layout = RunLayout(config.run)
    before = score_table.read_score_table(layout.scores("linear"))
    parts = sorted(Path(layout.scores("linear")).glob("part-*.parquet"))
    kept_times = {part: part.stat().st_mtime_ns for part in parts[1:]}
    parts[0].unlink()
    Path(layout.marker("score-linear")).unlink()
    pipeline.score(config)
    assert {part: part.stat().st_mtime_ns for part in parts[1:]} == kept_times
    assert score_table.read_score_table(layout.scores("linear")).equals(before)


def test_a_run_folder_of_another_configuration_is_refused_by_field(study):
    config, _ = study
    with pytest.raises(ConfigError, match=r"train\.epochs was 3, got 4"):
        pipeline.run(changed(config, "train", epochs=4))


def test_subsets_by_another_column_stand_beside_the_runs_own(study):
    config, _ = study
    other = changed(config, "select", score_column="loss")
    own, found = pipeline.subset_urls(config), pipeline.subset_urls(other)
    before = [Path(url).read_bytes() for url in own]
    pipeline.select(other)
    assert [Path(url).read_bytes() for url in own] == before
    assert [Path(url).parent.name for url in found] == ["loss"] * len(own)
    table = score_table.read_score_table(RunLayout(config.run).scores("linear")).to_pandas()
    drawn = pq.read_table(next(url for url in found if "max_gradient" in url)).to_pandas()
    assert set(drawn.key) == set(table.nlargest(len(drawn), "loss").key)


def test_a_run_that_is_bound_to_another_column_refuses_the_subsets_it_has(study):
    config, _ = study
    other = changed(config, "select", score_column="loss")
    pipeline.bind(other)
    try:
        with pytest.raises(ConfigError, match="'grad_l2_last_layer_weights', now 'loss'"):
            pipeline.select(other)
    finally:
        pipeline.bind(config)


def test_another_drop_fraction_is_not_given_the_subsets_of_the_first(study):
    """Neither of those that say what was dropped, nor of those from before they said it."""
    config, _ = study
    cut = changed(config, "select", methods=("non_extreme_max_gradient",), keep_fractions=(0.07,))
    pipeline.select(cut)
    pipeline.select(cut)
    other = changed(cut, "select", drop_fraction=0.1)
    with pytest.raises(ConfigError, match=r"drop_fraction 0\.05, now 0\.1"):
        pipeline.select(other)
    for url in pipeline.subset_urls(cut):
        table = pq.read_table(url)
        facts = json.loads(table.schema.metadata[b"raygrad.subset"])
        del facts["drop_fraction"]
        metadata = {b"raygrad.subset": json.dumps(facts).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), url)
    pipeline.bind(other)  # as `raygrad run` does first
    with pytest.raises(ConfigError, match=r"drop_fraction 'another', now 0\.1"):
        pipeline.select(other)
    pipeline.bind(config)
    pipeline.select(cut)
    with pytest.raises(ConfigError, match=r"drop_fraction 0\.05, now 0\.1"):
        pipeline.select(other)


def test_a_second_network_is_trained_beside_the_first_and_each_keeps_its_configuration(
    ray_session, tmp_path
):
    """And what training watched of one is drawn by, though no stage score made that table."""
    first = changed(make_tiny_config(tmp_path), "train", epochs=1, lr_decay_epochs=())
    second = changed(first, "train", network="mlp", dynamics=True)
    for config in (first, second):
        pipeline.bind(config)
        pipeline.prepare(config)
        pipeline.train(config)
    changed_first = changed(first, "train", learning_rate=0.1)
    with pytest.raises(ConfigError, match="stage train-linear must have the inputs"):
        pipeline.bind(changed_first)
    pipeline.bind(first)
    pipeline.train(first)
    drawn = changed(
        first, "select", score_network="mlp-dynamics", score_column="el2n_mean", seeds=(0,)
    )
    pipeline.select(drawn)
    found = pq.read_table(pipeline.subset_urls(drawn)[1]).to_pandas()
    table = score_table.read_score_table(RunLayout(first.run).scores("mlp-dynamics")).to_pandas()
    assert set(found.key) == set(table.nlargest(len(found), "el2n_mean").key)


def test_a_networks_scores_are_guarded_where_the_folder_is_bound_to_another_network(study):
    """Binding would write what the stage score then refuses, and the folder would hold it."""
    config, _ = study
    second = changed(config, "train", network="mlp")
    wrong = changed(config, "score", columns=(*config.score.columns, "entropy"))
    pipeline.bind(second)
    try:
        before = pipeline.stored_config(config.run)
        with pytest.raises(ConfigError, match="stage score-linear must have the inputs"):
            pipeline.bind(wrong)
        assert pipeline.stored_config(config.run) == before
    finally:
        pipeline.bind(config)


def test_subsets_by_another_runs_scores_retrain_the_runs_own_network(study, tmp_path):
    """`--score-run` and `--network` are independent, and both stand in every row."""
    scored, results = study
    config = changed(make_tiny_config(tmp_path), "train", network="mlp", epochs=2)
    config = changed(config, "select", score_run=scored.run, seeds=(0,))
    config = changed(config, "sweep", protocols=("equal_epochs",))
    pipeline.bind(config)
    pipeline.prepare(config)
    rows = pipeline.sweep(config).to_pandas()
    assert set(rows.network) == {"mlp"}
    assert set(rows.score_network) == {"linear"}
    [run] = set(rows.score_run)
    assert run.startswith(f"{Path(scored.run).name}-")
    assert not Path(config.run, "scores").exists(), "nothing was scored in this run"
    subsets = [
        set(zip(table.method, table.keep_fraction, table.subset_digest, strict=True))
        for table in (rows, results.to_pandas().query("seed == 0"))
    ]
    assert subsets[0] == subsets[1], "drawn by the other run's scores"


def test_scoring_pays_for_subsets_by_its_own_scores_alone(study):
    """Neither for subsets made elsewhere nor for those by another column or network.

    Nor for subsets that teach less than all the data, as these of a twentieth do.
    """
    config, results = study
    rows = [row for row in results.to_pylist() if row["protocol"] == "equal_epochs"]
    assert planning.paybacks(config, rows)[1] == []
    rows = [row | {"test_accuracy": 0.9} for row in rows]
    drawn = next(row for row in rows if row["method"] == "max_gradient")
    others = [
        {**drawn, "method": "mine", "score_network": None, "score_column": None},
        {**drawn, "method": "by_loss", "score_column": "loss"},
        {**drawn, "method": "by_another", "score_network": "cnn"},
    ]
    expected = planning.paybacks(config, rows)
    assert [(network, one.method) for network, one in expected[1]] == [("linear", "max_gradient")]
    assert planning.paybacks(config, [*rows, *others]) == expected


def test_a_stage_without_the_one_before_says_which(tiny_config):
    with pytest.raises(ConfigError, match=r"stage prepare must be complete.*raygrad prepare"):
        pipeline.train(tiny_config)


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        ("select", {"methods": ("max_gradiant",)}, "Did you mean 'max_gradient'"),
        ("score", {"columns": ("grad_l2_last_layer_weights", "grad_l3_weights")}, "Did you mean"),
        ("train", {"network": "cn"}, "Did you mean 'cnn'"),
        ("data", {"source": "digit"}, "Did you mean 'digits'"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_starts(tiny_config, section, values, text):
    with pytest.raises(ConfigError, match=text):
        pipeline.run(changed(tiny_config, section, **values))
    assert not Path(tiny_config.run).exists()


def test_keeping_everything_is_drawn_once_and_impossible_fractions_are_left_out(tiny_config):
    config = changed(
        tiny_config,
        "select",
        methods=("max_gradient", "non_extreme_max_gradient"),
        keep_fractions=(0.5, 0.97, 1.0),
        seeds=(0,),
    )
    assert pipeline.grid(config.select) == [
        ("max_gradient", 0.5, 0),
        ("max_gradient", 0.97, 0),
        ("non_extreme_max_gradient", 0.5, 0),
        ("random", 1.0, 0),
    ]


def test_a_plan_counts_what_is_missing_and_the_sweep_is_set_against_it(study, caplog):
    config, results = study
    seeds = dataclasses.replace(config.select, seeds=(0, 1, 77))
    grown = dataclasses.replace(config, select=seeds)
    plan = pipeline.plan(grown, seconds=0.5)
    known = set(results["trial"].to_pylist())
    with caplog.at_level(logging.INFO, "raygrad"):
        after = pipeline.sweep(grown)
    new = [row for row in after.to_pylist() if row["trial"] not in known]
    missing = [row for row in new if row["seed"] == 77]
    assert len(plan.at_most.times) >= len(missing) > 0
    assert {row["trial"] for row in missing} <= {t.trial.id for t in plan.at_most.times}
    assert plan.num_finished > 0
    assert plan.expected is not None
    assert plan.expected.wall_s <= plan.at_most.wall_s
    text = "\n".join(plan.lines(2.0))
    assert f"cost {plan.at_most.device_hours * 2:.2f}" in text
    assert "the plan was" in caplog.text
