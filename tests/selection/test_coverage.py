"""CCS, DUAL's sampling and Moderate, against their definitions."""

import itertools
import math

import numpy as np
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.selection import draw
from raygrad.selection.coverage import Ccs, feature_distances
from tests.selection import reference
from tests.selection.test_draw import cases, keys_of


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0])
def test_ccs_equals_its_algorithm_in_python(class_balanced, case):
    _, scores, labels = case
    keys, within = keys_of(len(scores)), labels if class_balanced else None
    for budget, strata, drop in itertools.product((1, 11, 40), (1, 5, 50), (0.0, 0.3)):
        options = {"num_strata": strata, "drop_fraction": drop}
        found = draw(
            "ccs", scores, keys, budget, labels=labels, class_balanced=class_balanced, **options
        )
        expected = reference.draw("ccs", scores, keys, budget, 0, within, **options)
        assert [keys[at] for at in found] == expected


def test_ccs_leaves_out_the_hardest_and_covers_every_stratum():
    scores = np.r_[np.linspace(0, 1, 90), np.full(10, 9.0)]
    found = draw("ccs", scores, keys_of(100), 10, num_strata=10, drop_fraction=0.1)
    assert sorted(np.minimum((scores[found] * 10).astype(int), 9).tolist()) == list(range(10))


def dual_data(number):
    rng = np.random.default_rng(3)
    return {"dual": rng.gamma(2, 0.05, number), "mean_probability": rng.random(number)}


def test_dual_beta_draws_by_the_score_times_a_beta_density():
    """Against the density computed here: how often each is drawn first in 700 seeds."""
    columns, number, budget, n = dual_data(12), 12, 3, 700
    mean = columns["mean_probability"]
    mu = mean[np.argsort(-columns["dual"])[:10]].mean()
    beta = 15 * (1 - mu) * (1 - (1 - budget / number) ** 5.5)
    rate = columns["dual"] * mean ** (15 - beta) * (1 - mean) ** (beta - 1)
    exact = rate / rate.sum()
    first = [draw("dual_beta", columns, keys_of(12), budget, seed=seed)[0] for seed in range(n)]
    found = np.bincount(first, minlength=12) / n
    assert np.all(np.abs(found - exact) < 4.5 * np.sqrt(exact * (1 - exact) / n) + 2e-3)


def test_dual_beta_prefers_easier_examples_the_fewer_are_kept():
    columns, keys = dual_data(4000), keys_of(4000)
    kept = [draw("dual_beta", columns, keys, budget, c_d=5.5) for budget in (200, 1200, 3000)]
    means = [columns["mean_probability"][at].mean() for at in kept]
    assert means[0] > means[1] > means[2]


def test_dual_beta_refuses_what_is_not_a_probability():
    columns = dual_data(5)
    with pytest.raises(DataError, match=r"mean_probability must be in \[0, 1\]"):
        draw("dual_beta", {**columns, "mean_probability": np.full(5, 1.5)}, keys_of(5), 2)
    with pytest.raises(DataError, match="dual scores must be at least 0"):
        draw("dual_beta", {**columns, "dual": -columns["dual"]}, keys_of(5), 2)
    with pytest.raises(ConfigError, match="needs the columns dual, mean_probability, got one"):
        draw("dual_beta", columns["dual"], keys_of(5), 2)
    with pytest.raises(ConfigError, match="needs the columns dual, mean_probability, got dual"):
        draw("dual_beta", {"dual": columns["dual"]}, keys_of(5), 2)


@pytest.mark.parametrize("number", [1, 2, 3, 8, 41])
@pytest.mark.parametrize("class_balanced", [False, True])
def test_moderate_takes_the_nearest_to_the_median_distance(number, class_balanced):
    rng = np.random.default_rng(number)
    distances, labels = rng.gamma(2, size=number), rng.integers(0, 2, number)
    groups = [labels == c for c in np.unique(labels)] if class_balanced else [labels >= 0]
    budget = math.ceil(number / 3)
    found = draw(
        "moderate", distances, keys_of(number), budget, labels=labels, class_balanced=class_balanced
    )
    for of in groups:
        off = np.abs(distances - np.median(distances[of]))
        kept = np.flatnonzero(of & np.isin(np.arange(number), found))
        rest = np.flatnonzero(of & ~np.isin(np.arange(number), found))
        if kept.size and rest.size:
            assert off[kept].max() <= off[rest].min()


def test_feature_distances_are_to_the_median_of_the_own_class():
    features = np.array([[0.0, 0.0], [0.0, 4.0], [3.0, 0.0], [10.0, 10.0]])
    labels = np.array(["a", "a", "a", "b"])
    assert feature_distances(features, labels).tolist() == [0.0, 4.0, 3.0, 0.0]


def test_ccs_leaves_out_what_its_authors_do_at_each_budget():
    """0.3 at a tenth of CIFAR-10, as in the authors' command; a line between, level beyond."""
    ccs = Ccs(drop_schedule="cifar10")
    assert [ccs.dropped(kept) for kept in (0.01, 0.1, 0.15, 0.2, 0.9)] == pytest.approx(
        [0.3, 0.3, 0.2, 0.1, 0.0]
    )
    assert Ccs(drop_fraction=0.25).dropped(0.1) == 0.25
    scores, keys = np.arange(1000.0), [str(at) for at in range(1000)]
    hardest = draw("ccs", scores, keys, 100, drop_schedule="cifar10").max()
    assert 600 < hardest < 700
    with pytest.raises(ConfigError, match="drop_schedule must be one of"):
        draw("ccs", scores, keys, 100, drop_schedule="mnist")
