"""Rank correlations, joins by key and baselines against scipy and brute force."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raygrad.report.browser import browser_data
from raygrad.report.examples import hardness_order
from raygrad.report.figures.agreement import shared_tops, top_chances
from raygrad.report.figures.correlation import gathered_columns, rank_correlations
from raygrad.report.figures.entropy import balanced_entropy
from raygrad.report.figures.overlap import shared_scores
from raygrad.report.figures.ranks import sampled_ranks
from raygrad.report.tables import Run, Scores
from raygrad.report.thumbnails import make_thumbnail


def test_networks_are_compared_by_key_not_by_row():
    a = Scores("a", pa.table({"key": ["x", "y", "z"], "label": [0, 0, 0], "s": [1.0, 2.0, 3.0]}))
    b = Scores("b", pa.table({"key": ["z", "w", "x"], "label": [0, 0, 0], "s": [30.0, 40.0, 10.0]}))
    x, y = shared_scores(a, b, "s")
    assert (x.tolist(), y.tolist()) == ([1.0, 3.0], [10.0, 30.0])


def test_rank_correlations_are_scipys_over_the_examples_that_both_columns_have():
    rng = np.random.default_rng(2)
    a = rng.integers(0, 9, 60).astype(float)
    b = a + rng.normal(size=60)
    c = rng.normal(size=60)
    c[:20] = np.nan
    flat = np.ones(60)
    got = rank_correlations({"a": a, "b": b, "c": c, "flat": flat})
    assert got[0, 1] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert got[2, 0] == pytest.approx(stats.spearmanr(a[20:], c[20:]).statistic)
    assert np.isnan(got[3, 0])
    assert np.array_equal(got, got.T, equal_nan=True)


def test_equal_scores_at_the_edge_of_the_top_are_taken_at_random():
    """Counts such as forgetting's have no k hardest: all orders of equal ones count alike."""
    counts = np.array([0.0, 2.0, 1.0, 1.0, np.inf, 1.0])
    ranks = np.array([9.0, 8.0, 7.0, 2.0, 1.0, 0.5])
    orders = [np.array(p) for p in itertools.permutations(range(6))]
    for k in (1, 3, 4, 6):
        tops = [order[np.argsort(-counts[order], kind="stable")][:k] for order in orders]
        drawn = np.mean([np.isin(np.arange(6), top) for top in tops], axis=0)
        assert top_chances(counts, k) == pytest.approx(drawn)
    big = np.repeat(counts, 20), np.repeat(ranks, 20) + np.tile(np.arange(20) / 100, 6)
    (row,) = shared_tops({"count": big[0], "rank": big[1]}, "rank").to_pylist()
    # Of the hardest 12 by rank, of score 0, none is among the 12 hardest by count.
    assert (row["top_5"], row["top_10"]) == (0.0, 0.0)
    alike = shared_tops({"flat": np.ones(120), "rank": big[1]}, "rank").to_pylist()[0]
    assert alike["top_10"] == pytest.approx(0.1), "what chance gives"


def test_a_probability_of_the_label_stands_beside_scores_as_one_less_itself():
    keys = ["a", "b", "c"]
    table = pa.table({"key": keys, "shard": ["s"] * 3, "label": [0, 0, 0], "loss": [0.1, 0.5, 2.0]})
    followed = pa.table({"key": keys, "mean_probability": [0.9, 0.6, 0.1]})
    run = Run("r", "r", scores={"cnn": Scores("cnn", table)}, dynamics={"cnn": followed})
    columns = gathered_columns(run, "cnn", "loss")
    assert list(columns) == ["loss", "1 - mean_probability"]
    assert rank_correlations(columns)[0, 1] == pytest.approx(1.0)
    pictures = {key: make_thumbnail(np.zeros((8, 8), np.uint8)) for key in keys}
    shown = browser_data(run, "cnn", "loss", np.arange(3), pictures)["columns"]
    assert shown == {"loss": [0.1, 0.5, 2.0], "1 - mean_probability": [0.1, 0.4, 0.9]}
    # Where dynamics are all the scores that there are, they stand in the table itself.
    alone = Scores("cnn", table.append_column("mean_probability", followed["mean_probability"]))
    own = gathered_columns(Run("r", "r", scores={"cnn": alone}), "cnn", "loss")
    assert own["1 - mean_probability"] == pytest.approx([0.1, 0.4, 0.9])


def test_never_learned_examples_of_infinite_forgetting_rank_as_the_hardest():
    forgetting = np.array([0.0, 1.0, np.inf, 2.0])
    loss = np.array([0.1, 0.2, 0.9, 0.3])
    matrix = rank_correlations({"forgetting": forgetting, "loss": loss})
    assert matrix[0, 1] == pytest.approx(1.0)


def test_the_order_as_scores_keeps_infinite_and_missing_scores_in_their_places():
    values = np.array([1.0, np.nan, 3.0, np.inf])
    assert hardness_order(values).tolist() == [2.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_the_balanced_baseline_is_the_most_that_k_labels_can_have(classes):
    ranks = np.arange(1, 45)
    labels = np.arange(44) % classes
    expected = [stats.entropy(np.bincount(labels[:k]), base=2) for k in ranks]
    assert balanced_entropy(classes, ranks) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 299, 5000])
def test_sampled_ranks_begin_at_one_and_end_with_all(size):
    ranks = sampled_ranks(size)
    assert ranks[0] == 1
    assert ranks[-1] == size
    assert (np.diff(ranks) > 0).all()
