"""A published table of scores is named by the data set's own numbers and pixels."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import published_scores
from raygrad import pipeline
from raygrad.data.arrays import load_arrays
from raygrad.data.index import read_index
from raygrad.runs import score_table
from raygrad.runs.layout import RunLayout
from tests.cases import make_tiny_config
from tests.pipeline.making_runs import without_ray

RECORD = Path(published_scores.__file__).parent / "records" / "2026-11-28-scores-mnist.parquet"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder of digits with the scores of two networks, each in an order of its own."""
    without_ray(monkeypatch)
    config = make_tiny_config(tmp_path)
    pipeline.bind(config)
    pipeline.prepare(config)
    layout = RunLayout(config.run)
    rows = read_index(layout.data).examples.to_pylist()
    rows = [row for row in rows if row["split"] == "train"]
    for network in (0, 1):
        of = [rows[i] for i in np.random.default_rng(network).permutation(len(rows))]
        names = {"key": [r["key"] for r in of], "shard": ["s"] * len(of),
                 "label": [r["label"] for r in of]}  # fmt: skip
        for folder, columns in (
            (f"n{network}", published_scores.FINAL),
            (f"n{network}-dynamics", published_scores.DYNAMICS),
        ):
            found = {
                column: [float(row["key"][-4:]) + 10 * network + at for row in of]
                for at, column in enumerate(columns)
            }
            score_table.write_part(layout.scores(folder), "s", pa.table(names | found), {})
            score_table.write_manifest(layout.scores(folder), ["s"], {}, 0.0)
    return layout


def test_rows_are_of_the_images_that_their_digests_say(run, tmp_path):
    table = published_scores.published(run.url, ["n0", "n1"])
    published_scores.write(table, tmp_path / "own.parquet", {"source": "digits"})
    assert pq.read_table(tmp_path / "own.parquet").equals(table)
    arrays = load_arrays(read_index(run.data), "train", channels=1)
    images = {int(key[-4:]): image for key, image in zip(arrays.keys, arrays.images, strict=True)}
    labels = {int(key[-4:]): label for key, label in zip(arrays.keys, arrays.labels, strict=True)}
    assert table["index"].to_pylist() == sorted(images)
    for row in table.to_pylist():
        pixels = images[row["index"]].astype(np.uint8).tobytes()
        assert f"{row['digest']:08x}" == hashlib.sha256(pixels).hexdigest()[:8]
        assert row["label"] == labels[row["index"]]
        assert row["grad_l2_weights"] == row["index"] + 5
        assert row["forgetting"] == row["index"] + 5 + 1


def test_networks_that_scored_other_images_are_refused(run):
    table = score_table.read_score_table(run.scores("n1"))
    score_table.write_part(run.scores("n2"), "s", table.slice(1), {})
    score_table.write_manifest(run.scores("n2"), ["s"], {}, 0.0)
    with pytest.raises(AssertionError, match="n2 has other images"):
        published_scores.mean_scores(run, ["n0", "n2"])


def test_the_published_table_of_mnist_is_whole():
    table = pq.read_table(RECORD)
    index = table["index"].to_numpy()
    assert (np.diff(index) > 0).all()
    assert (len(index), index.min() >= 0, index.max() < 60_000) == (54_017, True, True)
    for name in (*published_scores.FINAL, *published_scores.DYNAMICS):
        assert table[name].type == pa.float32()
        assert not np.isnan(table[name].to_numpy()).any()
    assert RECORD.stat().st_size < 2**20


def test_images_of_class_folders_are_named_by_their_files():
    assert published_scores.names_of(["digits-0007", "digits-12"])["index"].to_pylist() == [7, 12]
    files = ["train/cat/0007", "train/dog/0007"]
    assert published_scores.names_of(files)["file"].to_pylist() == files


def test_columns_are_chosen_and_none_of_training_are_needed(run):
    table = published_scores.published(run.url, ["n0", "n1"], ["grad_l2_weights"], [])
    assert table.column_names == ["index", "digest", "label", "grad_l2_weights"]


def test_the_published_table_of_cifar_10_is_whole():
    table = pq.read_table(RECORD.with_name("2026-11-29-scores-cifar10.parquet"))
    files = table["file"].to_pylist()
    assert (len(set(files)), files == sorted(files)) == (44_969, True)
    classes = sorted({name.split("/")[1] for name in files})
    labels = table["label"].to_pylist()
    assert all(
        classes[label] == name.split("/")[1] for label, name in zip(labels, files, strict=True)
    )
    for name in ("grad_l2_last_layer_weights", "grad_l2_weights", "loss", "el2n"):
        assert table[name].type == pa.float32()
        assert np.isfinite(table[name].to_numpy()).all()
