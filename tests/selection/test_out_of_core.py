"""Draws from parts: the rows, ranks and weights that a draw in memory gives."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.selection import METHODS, bracket, draw, inclusion_weights, out_of_core
from raygrad.selection import order as order_module
from raygrad.selection.keyed_random import key_hashes
from raygrad.selection.out_of_core import draw_parts

NUMBER = 3000


def columns(kind="plain"):
    rng = np.random.default_rng(0)
    scores = rng.gamma(1, size=NUMBER).astype(np.float32)
    if kind == "tied":
        scores = rng.integers(0, 4, NUMBER).astype(np.float32)
    if kind == "constant":
        scores = np.full(NUMBER, 0.25, np.float32)
    return {
        "key": [f"n{at % 7:02d}/{at}" for at in range(NUMBER)],
        "shard": [f"shard-{at // 500}" for at in range(NUMBER)],
        "label": rng.choice(5, NUMBER, p=[0.01, 0.04, 0.15, 0.3, 0.5]),
        "norm": scores,
        "dual": scores,
        "mean_probability": rng.random(NUMBER),
        "feature_distance": scores,
        "copy_similarity": scores,
    }


def write_parts(folder, table, *, cuts=(0, 10, 1200, 1200, 3000), with_hash=True, order=None):
    table = pa.table(table)
    if with_hash:
        table = table.append_column("key_hash", pa.array(key_hashes(table["key"].to_pylist())))
    if order is not None:
        table = table.take(pa.array(order))
    paths = []
    for at, (start, end) in enumerate(itertools.pairwise(cuts)):
        paths.append(str(folder / f"part-{len(cuts)}-{with_hash}-{at}.parquet"))
        pq.write_table(table.slice(start, end - start), paths[-1], row_group_size=333)
    return paths


@pytest.fixture
def small_bounds(monkeypatch):
    """Makes few rows many: histograms, sampled splitters and ranges are all exercised."""
    monkeypatch.setattr(order_module.cut, "__kwdefaults__", {"max_candidates": 20})
    monkeypatch.setattr(out_of_core, "SORTED_ROWS", 90)


@pytest.mark.parametrize("kind", ["plain", "tied", "constant"])
@pytest.mark.parametrize("class_balanced", [False, True, "proportional"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_parts_give_what_memory_gives(tmp_path, small_bounds, method, class_balanced, kind):
    table = columns(kind)
    parts = write_parts(tmp_path, table)
    sink = str(tmp_path / "subset.parquet")
    drawn = draw_parts(
        method, parts, sink, lambda total: total // 5, score_column="norm", seed=4,
        class_balanced=class_balanced,
    )  # fmt: skip
    found = pq.read_table(sink)
    needed = METHODS[method].columns
    scores = {name: table["norm" if name == "score" else name] for name in needed}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module.cut, "__kwdefaults__", {"max_candidates": 2**21})
        expected = draw(
            method, scores, table["key"], NUMBER // 5, seed=4, labels=table["label"],
            class_balanced=class_balanced,
        )  # fmt: skip
    assert (drawn.num_rows, drawn.num_candidates) == (NUMBER // 5, NUMBER)
    assert found["key"].to_pylist() == [table["key"][at] for at in expected]
    assert found["shard"].to_pylist() == [table["shard"][at] for at in expected]
    assert found["rank"].to_pylist() == list(range(NUMBER // 5))
    within = table["label"] if class_balanced else None
    weights = inclusion_weights(
        method, table["norm"], expected, keys=table["key"], seed=4, labels=within
    )
    assert found["weight"].to_numpy() == pytest.approx(weights, rel=1e-12)


@pytest.mark.parametrize("method", ["random", "max_gradient", "gradient_cdf", "ccs"])
def test_neither_parts_nor_threads_nor_a_stored_hash_change_a_draw(tmp_path, small_bounds, method):
    table, found = columns("tied"), []
    shuffled = np.random.default_rng(1).permutation(NUMBER)
    for cuts, threads, with_hash, order in (
        ((0, 3000), 1, True, None),
        ((0, 1, 700, 3000), 4, False, shuffled),
    ):
        parts = write_parts(tmp_path, table, cuts=cuts, with_hash=with_hash, order=order)
        sink = str(tmp_path / "subset.parquet")
        draw_parts(method, parts, sink, 500, score_column="norm", num_threads=threads)
        found.append(pq.read_table(sink).select(["key", "shard", "rank"]))
    assert found[0].equals(found[1])


@pytest.mark.parametrize("kind", ["plain", "tied"])
@pytest.mark.parametrize("method", ["max_gradient", "gradient_cdf", "ccs", "moderate"])
def test_a_cut_by_a_sample_draws_what_memory_draws(tmp_path, monkeypatch, method, kind):
    """As at millions of rows: a sample brackets the cut, and no histogram is made."""
    table = columns(kind)
    scores = {name: table["norm" if name == "score" else name] for name in METHODS[method].columns}
    expected = draw(method, scores, table["key"], 400, seed=2)
    monkeypatch.setattr(order_module.cut, "__kwdefaults__", {"max_candidates": 2000})
    monkeypatch.setattr(bracket, "SAMPLED", 1000)
    parts, sink = write_parts(tmp_path, table), str(tmp_path / "subset.parquet")
    draw_parts(method, parts, sink, 400, score_column="norm", seed=2)
    assert pq.read_table(sink)["key"].to_pylist() == [table["key"][at] for at in expected]


def test_keys_without_a_stored_hash_are_hashed_once(tmp_path, small_bounds, monkeypatch):
    """However many passes a method makes, beside the few that settle ties."""
    hashed = []

    def counting(keys):
        hashed.append(len(keys))
        return key_hashes(keys)

    monkeypatch.setattr(out_of_core, "key_hashes", counting)
    parts, sink = write_parts(tmp_path, columns(), with_hash=False), str(tmp_path / "s.parquet")
    draw_parts("ccs", parts, sink, 500, score_column="norm", class_balanced=True)
    assert NUMBER <= sum(hashed) <= 1.5 * NUMBER


@pytest.mark.parametrize("missing", ["drop", "hardest", "easiest"])
def test_missing_scores_are_treated_as_in_memory(tmp_path, missing):
    table = columns()
    table["norm"][[3, 1500, 2999]] = [np.nan, np.inf, -np.inf]
    sink = str(tmp_path / "subset.parquet")
    parts = write_parts(tmp_path, table)
    with pytest.raises(DataError, match="got 3 that are not: n03/3, n02/1500, n03/2999"):
        draw_parts("gradient_cdf", parts, sink, 50, score_column="norm")
    drawn = draw_parts("gradient_cdf", parts, sink, 50, score_column="norm", missing=missing)
    expected = draw("gradient_cdf", table["norm"], table["key"], 50, missing=missing)
    found = pq.read_table(sink)["key"].to_pylist()
    assert found == [table["key"][at] for at in expected]
    assert drawn.num_missing == 3


def test_keys_of_one_hash_are_told_apart_in_parts_too(tmp_path, monkeypatch):
    table = columns("constant")
    monkeypatch.setattr(out_of_core, "key_hashes", lambda keys: np.zeros(len(keys), np.uint64))
    sink = str(tmp_path / "subset.parquet")
    parts = write_parts(tmp_path, table, with_hash=False)
    draw_parts("max_gradient", parts, sink, 40, score_column="norm")
    assert pq.read_table(sink)["key"].to_pylist() == sorted(table["key"])[:40]


def test_a_part_without_the_column_is_named(tmp_path):
    parts = write_parts(tmp_path, columns())
    with pytest.raises(ConfigError, match=r"must have the column score, got key.*part-5-True-0"):
        draw_parts("max_gradient", parts, str(tmp_path / "s.parquet"), 5)


def test_all_rows_can_be_drawn(tmp_path, small_bounds):
    sink = str(tmp_path / "subset.parquet")
    parts = write_parts(tmp_path, columns())
    draw_parts("random", parts, sink, NUMBER)
    assert sorted(pq.read_table(sink)["key"].to_pylist()) == sorted(columns()["key"])
