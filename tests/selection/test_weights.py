"""Weights undo the tilt of a draw: sums over the subset are unbiased for sums over all."""

import itertools

import numpy as np
import pytest

from raygrad.errors import ConfigError
from raygrad.selection import draw, inclusion_weights
from raygrad.selection.keyed_random import key_hashes, random_uniform

NUMBER = 1437


def heavy_tailed(number=NUMBER):
    """Gradient norms over five decades and a loss that goes with them, as trained networks have."""
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(-4, 2.5, number))
    return norms, norms * rng.gamma(2.0, 0.5, number), [f"train/{at:06d}" for at in range(number)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_mean_loss_and_the_number_of_examples_are_estimated_without_bias(share):
    """Over 100 draws: the mean loss within four standard errors of the truth, and within 3%."""
    norms, loss, keys = heavy_tailed()
    losses, numbers = [], []
    for seed in range(100):
        drawn = draw("gradient_cdf", norms, keys, round(share * NUMBER), seed=seed)
        weights = inclusion_weights("gradient_cdf", norms, drawn, keys=keys, seed=seed)
        losses.append((weights * loss[drawn]).sum() / NUMBER / loss.mean())
        numbers.append(weights.sum() / NUMBER)
    for found in (losses, numbers):
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        assert abs(np.mean(found) - 1) < 4 * error
    assert np.mean(losses) == pytest.approx(1, abs=0.03)


def test_a_weight_is_the_inverse_of_the_chance_given_the_next_arrival():
    """By hand: the race's times, the first that was not drawn, and 1 / (1 - exp(-g tau))."""
    scores, keys = np.array([1.0, 2.0, 5.0, 0.5]), list("abcd")
    times = -np.log(random_uniform(3, key_hashes(keys))) / scores
    drawn = draw("gradient_cdf", scores, keys, 2, seed=3)
    tau = np.sort(times)[2]
    found = inclusion_weights("gradient_cdf", scores, drawn, keys=keys, seed=3)
    assert set(drawn.tolist()) == set(np.argsort(times)[:2].tolist())
    assert found == pytest.approx(1 / (1 - np.exp(-scores[drawn] * tau)))


def test_within_classes_each_class_has_its_own_race():
    rng = np.random.default_rng(1)
    scores, labels = rng.gamma(1.0, size=60), np.repeat(["x", "y", "z"], [5, 15, 40])
    keys = [str(at) for at in range(60)]
    drawn = draw("gradient_cdf", scores, keys, 30, seed=2, labels=labels, class_balanced=True)
    found = inclusion_weights("gradient_cdf", scores, drawn, keys=keys, seed=2, labels=labels)
    for name in "xyz":
        at = np.flatnonzero(labels == name)
        inside = np.flatnonzero(np.isin(at, drawn))
        alone = inclusion_weights(
            "gradient_cdf", scores[at], inside, keys=[keys[one] for one in at], seed=2
        )
        by_key = dict(zip(drawn.tolist(), found, strict=True))
        assert [by_key[at[one]] for one in inside] == pytest.approx(alone.tolist())
    assert all(weight == 1 for at, weight in by_key.items() if labels[at] == "x")


@pytest.mark.parametrize(
    ("scores", "budget", "expected"),
    [
        ([0.0] * 6, 2, {0.0: 3.0}),  # the draw is uniform, of two in six
        ([0.0, 0.0, 0.0, 1.0, 2.0], 3, {0.0: 3.0, 1.0: 1.0, 2.0: 1.0}),
        ([0.0, 0.0, 1.0, 2.0], 2, {1.0: 1.0, 2.0: 1.0}),
        ([1.0, 2.0], 2, {1.0: 1.0, 2.0: 1.0}),
    ],
)
def test_scores_of_zero_are_drawn_uniformly_after_all_others(scores, budget, expected):
    keys = [str(at) for at in range(len(scores))]
    drawn = draw("gradient_cdf", np.array(scores), keys, budget)
    weights = inclusion_weights("gradient_cdf", np.array(scores), drawn, keys=keys)
    assert {scores[at]: weight for at, weight in zip(drawn, weights, strict=True)} == expected


def test_a_draw_of_all_but_one_knows_when_the_last_would_have_arrived():
    """Exact: over all orders of three, the mean of the estimated number is three."""
    scores, keys = np.array([0.2, 1.0, 3.0]), list("abc")
    found = []
    for seed in range(500):
        drawn = draw("gradient_cdf", scores, keys, 2, seed=seed)
        found.append(inclusion_weights("gradient_cdf", scores, drawn, keys=keys, seed=seed).sum())
    assert np.mean(found) == pytest.approx(3, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_other_methods_weigh_one_and_a_race_without_keys_is_refused():
    scores = np.array([1.0, 2.0, 5.0])
    assert inclusion_weights("max_gradient", scores, np.array([1])).tolist() == [1.0]
    for keys in (None, ["a"]):
        with pytest.raises(ConfigError, match="need the keys and the seed of the draw, got"):
            inclusion_weights("gradient_cdf", scores, np.array([1]), keys=keys)


def test_weights_of_equal_scores_are_equal_and_those_of_larger_ones_smaller():
    norms, _, keys = heavy_tailed(50)
    drawn = draw("gradient_cdf", norms, keys, 20)
    weights = inclusion_weights("gradient_cdf", norms, drawn, keys=keys)
    order = np.argsort(norms[drawn])
    assert all(one >= other for one, other in itertools.pairwise(weights[order]))
