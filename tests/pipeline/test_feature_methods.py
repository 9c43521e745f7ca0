"""Methods that read features, from the command: what they need is said, made, and drawn from."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.config import ScoreConfig, SelectConfig, StudyConfig, TrainConfig
from raygrad.data.index import read_index
from raygrad.pipeline import training
from raygrad.pipeline.redoing import forget_features
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.pipeline.selecting import score_sources
from raygrad.runs import score_table
from raygrad.runs.feature_draws import join
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import read_score_table
from raygrad.runs.subsets import read_subset
from raygrad.selection import draw
from raygrad.selection.named import COMPARING, parsed_options
from raygrad.selection.named import METHODS as ROW_METHODS
from raygrad.storage.manifest import read_json, write_marker
from tests.pipeline.making_runs import without_ray

COLUMN = "grad_l2_last_layer_weights"
METHODS = ("moderate", "semdedup", "k_center", "d2", "badge", "batch_aware")
OWN = [
    *("--network", "mlp", "--fresh-weights", "--image-size", "8", "--mean", "0", "--std", "1"),
    *("--columns", COLUMN),
]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


def select(run, *flags):
    given = ["--fresh-scores", "--seed", "0", "--keep-fraction", "0.05", *flags]
    return cli.main(["select", str(run), *given])


def keys_of(run, method, fraction="0.05", seed=0):
    name = f"{method}-{fraction}-{seed}.parquet"
    return read_subset(str(Path(run, "subsets", name)))[0]["key"].to_pylist()


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run whose digits a network has scored, and all that its features make, drawn once."""
    run = tmp_path_factory.mktemp("features") / "run"
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        assert cli.main(["prepare", "digits", "--run", str(run)]) == 0
        assert cli.main(["score", "--run", str(run), *OWN]) == 0
        before = read_score_table(RunLayout(str(run)).scores("mlp"))
        flags = ["--methods", *METHODS, "--keep-fractions", "0.05", "0.1", "--make-features"]
        assert cli.main(["select", str(run), "--fresh-scores", "--seed", "0", *flags]) == 0
        assert read_score_table(RunLayout(str(run)).scores("mlp")).equals(before)
    return run


def test_what_a_method_lacks_is_named_with_what_makes_it(tmp_path, capsys):
    run = tmp_path / "run"
    cli.main(["prepare", "digits", "--run", str(run)])
    cli.main(["score", "--run", str(run), *OWN])
    capsys.readouterr()
    assert select(run, "--methods", "badge") == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "badge needs features and errors of the images, got none of network 'mlp'" in said
    assert "--make-features" in said
    assert "score with --features" in said
    assert not list(Path(run, "subsets").glob("*"))


def test_errors_and_features_are_the_factors_of_the_last_layers_gradient(scored, tmp_path):
    """Their norms' product is the score, and the errors are those of the network's softmax."""
    layout = RunLayout(str(scored))
    joined = join(
        layout.scores("mlp"), layout.features("mlp"), score_table.VECTORS, COLUMN, str(tmp_path)
    )
    features, errors = (np.asarray(joined.arrays[n], np.float64) for n in ("features", "errors"))
    assert joined.arrays["features"].dtype == np.float16
    products = np.linalg.norm(features, axis=1) * np.linalg.norm(errors, axis=1)
    np.testing.assert_allclose(products, joined.arrays["score"], rtol=2e-3)
    [source] = score_inputs(pipeline.stored_config(str(scored))).sources
    logits = [m for m in source.build().modules() if isinstance(m, torch.nn.Linear)][-1](
        torch.from_numpy(features).float()
    )
    expected = logits.softmax(1).detach().numpy() - np.eye(10)[joined.labels]
    np.testing.assert_allclose(errors, expected, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_command_draws_what_memory_draws_and_nests(scored, tmp_path, method):
    layout = RunLayout(str(scored))
    joined = join(
        layout.scores("mlp"), layout.features("mlp"), score_table.VECTORS, COLUMN, str(tmp_path)
    )
    keys = joined.keys.to_pylist()
    found = {f: keys_of(scored, method, f) for f in ("0.05", "0.1")}
    assert set(found["0.05"]) < set(found["0.1"])
    expected = draw(method, joined.arrays, keys, len(found["0.1"]), labels=joined.labels)
    assert found["0.1"] == [keys[at] for at in expected]
    table, facts = read_subset(str(Path(scored, "subsets", f"{method}-0.1-0.parquet")))
    assert table.column_names == ["key", "shard", "weight", "rank"]
    assert facts["method"] == method
    assert facts["score_network"] == "mlp"


def test_features_that_are_there_are_not_made_again(scored, capsys, monkeypatch):
    monkeypatch.setattr(
        "raygrad.engine.score.job.pool_statuses", lambda *_: pytest.fail("a second pass")
    )
    assert select(scored, "--methods", "k_center", "--seeds", "1", "--make-features") == 0
    assert keys_of(scored, "k_center", seed=1) != keys_of(scored, "k_center")


def test_classes_are_evened_and_a_method_that_does_so_itself_says_so(scored, tmp_path, capsys):
    flags = ["--class-balanced", "even", "--seeds", "5", "--methods"]
    assert select(scored, *flags, "k_center", "semdedup", "d2") == 0
    labels = dict(
        zip(*(read_score_table(RunLayout(str(scored)).scores("mlp"))[n].to_pylist()
              for n in ("key", "label")), strict=True)
    )  # fmt: skip
    for method in ("k_center", "semdedup", "d2"):
        counts = np.bincount([labels[key] for key in keys_of(scored, method, seed=5)])
        assert counts.max() - counts.min() <= 1
    assert select(scored, *flags, "batch_aware") == 2
    assert "batch_aware evens classes by itself" in capsys.readouterr().err


def test_options_are_the_methods_own_and_a_change_of_them_is_refused(scored, capsys):
    plain = keys_of(scored, "d2")
    flags = ["--methods", "d2", "--options", "d2.gamma_r=0", "d2.num_neighbours=3"]
    assert select(scored, *flags) == 2
    assert "options None, now {'gamma_r': 0.0, 'num_neighbours': 3}" in capsys.readouterr().err
    assert select(scored, *flags, "--redo") == 0
    assert keys_of(scored, "d2") != plain
    assert select(scored, "--methods", "d2", "--redo") == 0
    assert keys_of(scored, "d2") == plain


def test_features_of_other_weights_are_refused(scored, capsys):
    path = Path(RunLayout(str(scored)).features("mlp"), "_manifest.json")
    before = path.read_text()
    manifest = json.loads(before)
    manifest["provenance"]["checkpoint"] = "0" * 32
    path.write_text(json.dumps(manifest))
    assert select(scored, "--methods", "k_center", "--seeds", "7") == 2
    assert "one network and its images, got another checkpoint" in capsys.readouterr().err
    path.write_text(before)


def test_scores_of_training_are_joined_to_features_of_the_network_it_trained(scored, capsys):
    """D2 by a score of dynamics; and features of other weights than those are refused."""
    layout = RunLayout(str(scored))
    table = read_score_table(layout.scores("mlp"), ["key", "shard", "label"])
    provenance = read_json(f"{layout.features('mlp')}/_manifest.json")["provenance"]
    aum = -np.arange(table.num_rows, dtype=np.float64)
    url, [shard] = layout.scores("mlp-dynamics"), set(table["shard"].to_pylist())
    for checkpoint, status in ((provenance["checkpoint"], 0), ("another", 2)):
        of = {"checkpoint": checkpoint}
        score_table.write_part(url, shard, table.append_column("aum", pa.array(aum)), of)
        score_table.write_manifest(url, [shard], of, 0.0)
        write_marker(layout.marker("train-mlp"), "digest", digest=checkpoint)
        flags = ["--score-network", "mlp-dynamics", "--score-column", "aum", "--seeds", "11"]
        assert select(scored, "--methods", "d2", *flags) == status
    assert "features and scores must be of one network" in capsys.readouterr().err
    Path(layout.marker("train-mlp")).unlink()
    [drawn] = Path(scored, "subsets").glob("*/*/d2-0.05-11.parquet")
    assert read_subset(str(drawn))[1]["score_column"] == "aum"


def test_dynamics_of_fewer_epochs_are_other_scores_of_the_same_weights(
    scored, monkeypatch, tmp_path
):
    """A subset by one table is not taken for one by the other.

    Of all epochs, as older versions knew nothing else, the digest is what theirs was.
    """
    run = tmp_path / "run"
    shutil.copytree(Path(scored, "data"), run / "data")
    layout = RunLayout(str(run))
    write_marker(layout.marker("prepare"), "", digest="data")
    keys = read_index(layout.data).rows("train")["key"]
    dual = pa.table({"key": keys, "dual": np.arange(len(keys), dtype=np.float64)})
    monkeypatch.setattr(training, "ensure_ray", lambda: None)
    monkeypatch.setattr(training, "refuse_changed_shards", lambda config: None)
    monkeypatch.setattr(training, "training_data", lambda config: None)
    monkeypatch.setattr(training.train_engine, "train", lambda *given: {})
    monkeypatch.setattr(training, "read_table", lambda url: dual)
    weights = SimpleNamespace(digest=lambda: "weights")
    monkeypatch.setattr(training, "load_checkpoint", lambda url: weights)
    score = ScoreConfig(columns=("loss",))
    by = SelectConfig(score_network="mlp-dynamics", score_column="dual", methods=("max_gradient",))
    digests = {}
    for epochs in (None, 5, 6):
        Path(layout.marker("train-mlp")).unlink(missing_ok=True)
        train = TrainConfig(network="mlp", dynamics=True, dynamics_epochs=epochs)
        config = StudyConfig(str(run), train=train, score=score, select=by)
        training.train(config)
        [source] = score_sources(config)
        digests[epochs] = source.digest
    assert digests[None] == "weights"
    assert len(set(digests.values())) == 3


def test_an_image_without_features_is_named(scored, capsys):
    layout = RunLayout(str(scored))
    shard = json.loads(Path(layout.features("mlp"), "_manifest.json").read_text())["shards"][0]
    path = Path(score_table.features_url(layout.features("mlp"), shard))
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    assert select(scored, "--methods", "k_center", "--seeds", "8") == 2
    assert f"got 1 of {shard} without: {table['key'][0]}" in capsys.readouterr().err
    pq.write_table(table, path)


def test_doing_a_network_again_lets_go_of_its_features(tmp_path):
    layout = RunLayout(str(tmp_path))
    for name in ("mlp", "other"):
        write_marker(layout.marker(f"features-{name}"), "digest")
        Path(layout.features(name)).mkdir(parents=True)
    forget_features(layout, "mlp")
    assert not Path(layout.marker("features-mlp")).exists()
    assert not Path(layout.features("mlp")).exists()
    assert Path(layout.marker("features-other")).exists()
    assert Path(layout.features("other")).exists()


def test_the_list_says_what_each_method_reads(capsys):
    assert cli.main(["select", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    reads = {line.split()[0]: line for line in lines[:-1] if line[0] != " "}
    options = [line.split() for line in lines if line[0] == " "]
    assert ["--options", "semdedup.num_clusters=0"] in options
    assert any("d2.gamma_r=1.0" in line for line in options)
    assert not any("ccs.drop_schedule" in line for line in lines), "it has its own flag"
    assert "reads features and errors (" in reads["badge"]
    assert "reads a score and features (" in reads["d2"]
    assert "reads features (" in reads["moderate"]
    assert "reads dual and mean_probability (" in reads["dual_beta"]
    assert "reads nothing (" in reads["random"]
    assert "--make-features" in lines[-1]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--options", "d2.gamma=1"], "option of d2 must be one of .*got 'gamma'"),
        (["--options", "d2.num_neighbours=x"], "must be of type int, got 'd2.num_neighbours=x'"),
        (["--options", "d2.scaled=1"], "must be true or false"),
        (["--options", "d2.gamma_r=nan"], "must be finite"),
        (["--options", "d2.gamma_r=-1"], "gamma_f and gamma_r at least 0"),
        (["--options", "gamma_r=1"], "must be written METHOD.NAME=VALUE"),
        (["--options", "d2.gamma_r=1", "d2.gamma_r=2"], "given once, got d2.gamma_r twice"),
        (["--options", "ccs.drop_schedule=cifar10"], "Give --ccs-drop"),
        (["--methods", "d2", "--missing", "easiest"], "missing must be error or drop for d2"),
        (["--methods", "k_centre"], "Did you mean 'k_center'"),
    ],
)
def test_wrong_use_is_one_line(scored, capsys, flags, text):
    assert select(scored, *flags) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert re.search(text, said)


def test_options_have_the_types_of_their_defaults():
    found = parsed_options(("d2.gamma_f=2", "d2.scaled=false", "band.low=0.1", "d2.block_size=50"))
    assert found == {
        "d2": {"gamma_f": 2.0, "scaled": False, "block_size": 50},
        "band": {"low": 0.1},
    }


EVERY = (*ROW_METHODS, *COMPARING)
DOES_NOT_NEST, EVENS_ITSELF = ("dual_beta",), ("batch_aware",)


@pytest.fixture(scope="module")
def watched(scored):
    """The run, with dynamics beside its scores: all that a listed method reads is there."""
    layout = RunLayout(str(scored))
    table = read_score_table(layout.scores("mlp"), ["key", "shard", "label"])
    rng = np.random.default_rng(0)
    for name in ("dual", "mean_probability"):
        table = table.append_column(name, pa.array(rng.uniform(0.05, 0.95, table.num_rows)))
    provenance = read_json(f"{layout.scores('mlp')}/_manifest.json")["provenance"]
    url, [shard] = layout.scores("mlp-dynamics"), set(table["shard"].to_pylist())
    score_table.write_part(url, shard, table, provenance)
    score_table.write_manifest(url, [shard], provenance, 0.0)
    marker = Path(layout.marker("train-mlp"))
    write_marker(str(marker), "digest", digest=provenance["checkpoint"])
    yield scored
    marker.unlink()


def test_the_list_and_the_table_below_are_of_the_same_methods(capsys):
    """A method that is listed and not drawn here would be one that nobody has seen running."""
    assert cli.main(["select", "--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[:-1]}
    assert set(lines) - {"--options"} == set(EVERY)
    assert all("does not nest" in lines[name] for name in DOES_NOT_NEST)


@pytest.mark.parametrize("method", EVERY)
def test_every_method_that_is_listed_runs_from_the_command(watched, tmp_path, capsys, method):
    """Keys of its own images in a keyed order, nested and of even classes, or what it says."""
    layout = RunLayout(str(watched))
    flags = ["--methods", method, "--seeds", "31", "--keep-fractions", "0.05", "0.1"]
    if method == "dual_beta":
        assert select(watched, *flags) == 2
        assert "dual" in capsys.readouterr().err, "what it lacks is named"
        flags += ["--score-network", "mlp-dynamics"]
    assert select(watched, *flags) == 0
    drawn = {}
    for fraction in ("0.05", "0.1"):
        [path] = Path(watched, "subsets").rglob(f"{method}-{fraction}-31.parquet")
        drawn[fraction] = read_subset(str(path))[0]
    table = read_score_table(layout.scores("mlp"))
    labels = dict(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True))
    keys = {fraction: found["key"].to_pylist() for fraction, found in drawn.items()}
    for fraction, found in keys.items():
        assert len(found) == len(set(found)) == round(float(fraction) * len(labels))
        assert set(found) <= set(labels)
        assert drawn[fraction]["rank"].to_pylist() == list(range(len(found)))
    assert (set(keys["0.05"]) < set(keys["0.1"])) == (method not in DOES_NOT_NEST)

    even = [*flags[:2], "--class-balanced", "even", "--seeds", "33", *flags[7:]]
    if method in EVENS_ITSELF:
        assert select(watched, *even) == 2
        assert f"{method} evens classes by itself" in capsys.readouterr().err
        return
    assert select(watched, *even) == 0
    [path] = Path(watched, "subsets").rglob(f"{method}-0.05-33.parquet")
    counts = np.bincount([labels[key] for key in read_subset(str(path))[0]["key"].to_pylist()])
    assert counts.max() - counts.min() <= 1
