"""Subsets from side tables: joined by key, part by part, whatever order and surplus they have."""

import numpy as np
import pyarrow as pa
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.runs import score_table
from raygrad.runs.feature_draws import (
    draw_subset_by_features,
    join,
    read_vectors,
    vectors_there,
)
from raygrad.runs.subsets import read_subset
from raygrad.selection import draw

PROVENANCE = {"checkpoint": "c", "columns": "loss"}
SHARDS = {"a": 9, "b": 0, "c": 12}


def tables(folder, width=4, surplus=0):
    """Writes scores and, in another order, side tables; returns the folders and all rows."""
    rng, rows = np.random.default_rng(0), {}
    scores, side = str(folder / "scores"), str(folder / "side")
    for shard, number in SHARDS.items():
        keys = [f"{shard}{at}" for at in range(number + surplus)]
        features = rng.normal(size=(number + surplus, width)).astype(np.float16)
        labels, loss = np.arange(number) % 2, rng.random(number).astype(np.float32)
        part = {"key": keys[:number], "shard": [shard] * number, "label": labels, "loss": loss}
        schema = {"key": pa.string(), "shard": pa.string(), "label": pa.int64()}
        columns = {name: pa.array(values, schema.get(name)) for name, values in part.items()}
        score_table.write_part(scores, shard, pa.table(columns), PROVENANCE)
        order = rng.permutation(number + surplus)
        if len(order):
            vectors = {"features": features[order]}
            score_table.write_vectors(side, shard, [keys[at] for at in order], vectors)
        rows |= {keys[at]: (features[at], labels[at], loss[at]) for at in range(number)}
    for url in (scores, side):
        score_table.write_manifest(url, list(SHARDS), PROVENANCE, 0.0)
    return scores, side, rows


@pytest.mark.parametrize("surplus", [0, 3])
def test_rows_are_joined_by_key_whatever_the_order_and_the_surplus(tmp_path, surplus):
    scores, side, rows = tables(tmp_path, surplus=surplus)
    assert vectors_there(side) == ("features",)
    assert vectors_there(scores) is None
    joined = join(scores, side, ["features"], "loss", str(tmp_path))
    assert joined.keys.to_pylist() == list(rows)
    np.testing.assert_array_equal(joined.arrays["features"], [row[0] for row in rows.values()])
    np.testing.assert_array_equal(joined.arrays["score"], [row[2] for row in rows.values()])
    assert joined.ends == (9, 9, 21)


@pytest.mark.parametrize("class_balanced", [False, "even"])
@pytest.mark.parametrize("method", ["k_center", "d2", "semdedup", "moderate"])
def test_a_subset_is_what_memory_draws(tmp_path, method, class_balanced):
    scores, side, rows = tables(tmp_path)
    url = str(tmp_path / "subset.parquet")
    draw_subset_by_features(
        scores, side, url, method, 0.4, 3, {}, score_column="loss", class_balanced=class_balanced
    )
    features, labels, loss = (np.array(column) for column in zip(*rows.values(), strict=True))
    arrays = {"features": features, "score": loss}
    expected = draw(
        method, arrays, list(rows), 8, seed=3, labels=labels, class_balanced=class_balanced
    )
    table, facts = read_subset(url)
    assert table["key"].to_pylist() == [list(rows)[at] for at in expected]
    assert facts == {"method": method, "keep_fraction": 0.4, "seed": 3}


@pytest.mark.parametrize("method", ["k_center", "moderate"])
def test_features_that_are_not_finite_are_named_or_left_out(tmp_path, method):
    scores, side, rows = tables(tmp_path)
    features = np.stack([rows[f"a{at}"][0] for at in range(9)])
    features[2, 1] = np.inf
    score_table.write_vectors(side, "a", [f"a{at}" for at in range(9)], {"features": features})
    url = str(tmp_path / "subset.parquet")
    with pytest.raises(DataError, match=r"must be finite, got 1 .*: a2"):
        draw_subset_by_features(scores, side, url, method, 0.5, 0, {})
    draw_subset_by_features(scores, side, url, method, 1.0, 0, {}, missing="drop")
    assert set(read_subset(url)[0]["key"].to_pylist()) == set(rows) - {"a2"}


def test_vectors_of_another_width_are_refused(tmp_path):
    scores, side, _ = tables(tmp_path)
    other = {"features": np.ones((12, 5), np.float16)}
    score_table.write_vectors(side, "c", [f"c{at}" for at in range(12)], other)
    with pytest.raises(ConfigError, match="features must be of one width and type, got 5"):
        join(scores, side, ["features"], None, str(tmp_path))
    with pytest.raises(ConfigError, match="must have the column errors, got key, features"):
        join(scores, side, ["errors"], None, str(tmp_path))


def test_a_side_table_without_errors_says_what_makes_them(tmp_path):
    _, side, rows = tables(tmp_path)
    keys = pa.chunked_array([[key for key in rows if key.startswith("a")]])
    with pytest.raises(ConfigError, match="--make-features --redo"):
        read_vectors(side, "a", keys, ["features", "errors"])
