"""Overlap of hard sets, rank correlation and label entropy against brute force."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raygrad.report.figures.correlation import average_ranks, rank_correlations
from raygrad.report.figures.entropy import balanced_entropy, label_entropies
from raygrad.report.figures.overlap import overlap, shared_scores
from raygrad.report.figures.ranks import sampled_ranks
from raygrad.report.tables import Scores


def test_the_overlap_is_that_of_the_sets_for_every_k():
    rng = np.random.default_rng(0)
    a = rng.random(200)
    b = a + rng.random(200)
    ranks = np.arange(1, 201)
    expected = [
        len(set(np.argsort(-a)[:k].tolist()) & set(np.argsort(-b)[:k].tolist())) / k for k in ranks
    ]
    assert overlap(a, b, ranks).tolist() == expected


def test_two_random_orders_share_k_of_n_on_average():
    rng = np.random.default_rng(1)
    ranks = np.array([10, 50, 100])
    mean = np.mean([overlap(*rng.random((2, 100)), ranks) for _ in range(800)], axis=0)
    assert mean == pytest.approx(ranks / 100, abs=0.015)


def test_networks_are_compared_by_key_not_by_row():
    a = Scores("a", pa.table({"key": ["x", "y", "z"], "label": [0, 0, 0], "s": [1.0, 2.0, 3.0]}))
    b = Scores("b", pa.table({"key": ["z", "w", "x"], "label": [0, 0, 0], "s": [30.0, 40.0, 10.0]}))
    x, y = shared_scores(a, b, "s")
    assert (x.tolist(), y.tolist()) == ([1.0, 3.0], [10.0, 30.0])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_average_ranks_are_scipys(values):
    x = np.array(values, dtype=float)
    assert average_ranks(x).tolist() == (stats.rankdata(x) - 1).tolist()


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


def test_never_learned_examples_of_infinite_forgetting_rank_as_the_hardest():
    forgetting = np.array([0.0, 1.0, np.inf, 2.0])
    loss = np.array([0.1, 0.2, 0.9, 0.3])
    matrix = rank_correlations({"forgetting": forgetting, "loss": loss})
    assert matrix[0, 1] == pytest.approx(1.0)


def test_label_entropy_is_scipys_for_every_k():
    labels = np.random.default_rng(3).integers(0, 7, 150)
    ranks = np.arange(1, 151)
    expected = [stats.entropy(np.bincount(labels[:k]), base=2) for k in ranks]
    assert label_entropies(labels, ranks, 7) == pytest.approx(expected, abs=1e-12)


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
