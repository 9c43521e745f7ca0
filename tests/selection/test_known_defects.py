"""Defects of other implementations that concern selection, each by name."""

import numpy as np

from raygrad.selection import draw

KEYS = [f"k{at}" for at in range(6)]


def test_entropy_and_least_confidence_are_not_selected_with_the_wrong_sign():
    """Higher is harder for every column, so the most uncertain example comes first."""
    entropy = np.array([0.1, 0.9, 0.3, 0.2, 0.8, 0.0])
    assert draw("max_gradient", {"entropy": entropy}, KEYS, 2).tolist() == [1, 4]
    assert draw("easiest", {"entropy": entropy}, KEYS, 2).tolist() == [5, 0]


def test_class_quotas_do_not_reuse_one_class_count():
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = draw("max_gradient", np.arange(6.0), KEYS, 5, labels=labels, class_balanced=True)
    assert np.bincount(labels[found]).tolist() == [2, 2, 1]


def test_a_repeated_run_does_not_reseed_with_the_same_seed():
    """Another seed is another draw, and a seed draws the same whatever was drawn before it."""
    many = [f"k{at}" for at in range(500)]
    first = draw("random", np.ones(500), many, 50, seed=1).tolist()
    second = draw("random", np.ones(500), many, 50, seed=2).tolist()
    assert set(first) != set(second)
    np.random.default_rng(0).random(10)
    assert draw("random", np.ones(500), many, 50, seed=1).tolist() == first


def test_scores_are_not_sorted_away_from_their_keys():
    """Positions point into the arrays as given, and the arrays are left as they were."""
    scores = np.array([3.0, 1.0, 6.0, 2.0, 5.0, 4.0])
    before = scores.copy()
    for method in ("max_gradient", "gradient_cdf", "easiest"):
        draw(method, scores, KEYS, 3)
    assert scores.tolist() == before.tolist()
    found = draw("max_gradient", scores, KEYS, 3)
    assert scores[found].tolist() == [6.0, 5.0, 4.0]
