"""Draws: exact probabilities, ties, nesting, order, classes, missing scores."""

import itertools
import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrad.errors import ConfigError, DataError
from raygrad.selection import METHODS, check_method, draw
from raygrad.selection.rows import ArrayBatch, Rows
from tests.selection import reference

OPTIONS = {"band": {"low": 0.2, "high": 0.9}}
SIMPLE = ["random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf", "easiest", "band"]


def keys_of(number):
    return [f"train/{at:06d}" for at in range(number)]


def cases():
    rng = np.random.default_rng(0)
    yield "random", rng.gamma(1.0, size=97), rng.integers(0, 4, 97)
    yield "tied", rng.integers(0, 3, 97).astype(np.float32), rng.integers(0, 4, 97)
    yield "constant", np.full(60, 2.5), np.repeat([0, 1, 2], [3, 7, 50])
    yield "imbalanced", rng.gamma(0.3, size=90), np.repeat([0, 1, 2], [2, 8, 80])
    yield "negative", rng.normal(size=80), rng.integers(0, 2, 80)
    yield "zeros", np.where(rng.random(80) < 0.5, 0.0, rng.random(80)), rng.integers(0, 2, 80)


@pytest.mark.parametrize("method", SIMPLE)
@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0])
def test_a_draw_equals_a_sort_in_python(method, class_balanced, case):
    name, scores, labels = case
    if method == "gradient_cdf" and name == "negative":
        pytest.skip("refused")
    keys, options = keys_of(len(scores)), OPTIONS.get(method, {})
    for budget, seed in itertools.product((1, 7, 30), (0, 5)):
        within = labels if class_balanced else None
        expected = reference.draw(method, scores, keys, budget, seed, within, **options)
        found = draw(
            method, scores, keys, budget, seed=seed, labels=labels,
            class_balanced=class_balanced, **options,
        )  # fmt: skip
        assert [keys[at] for at in found] == expected
        assert found.dtype == np.int64


def inclusion_probabilities(rates, budget):
    """Sums over every order in which successive sampling can draw the budget."""
    chance = np.zeros(len(rates))
    for drawn in itertools.permutations(range(len(rates)), budget):
        left, p = sum(rates), 1.0
        for at in drawn:
            p *= rates[at] / left
            left -= rates[at]
        chance[list(drawn)] += p
    return chance


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_gradient_cdf_includes_each_example_with_its_exact_probability(budget):
    """Within 4.5 standard deviations of a binomial over 900 seeds, of equation 8's sampling."""
    rates, keys, n = [0.1, 1.0, 2.0, 5.0, 0.5], ["a", "b", "c", "d", "e"], 900
    found = np.zeros(len(rates))
    for seed in range(n):
        found[draw("gradient_cdf", np.array(rates), keys, budget, seed=seed)] += 1
    exact = inclusion_probabilities(rates, budget)
    assert np.all(np.abs(found / n - exact) < 4.5 * np.sqrt(exact * (1 - exact) / n) + 1e-12)


@pytest.mark.parametrize("method", SIMPLE)
def test_random_draws_are_uniform_over_ties(method):
    """Of equal scores each is drawn alike, wherever it stands: ties never go by position."""
    keys, n, budget = keys_of(6), 400, 2
    found = np.zeros(6)
    for seed in range(n):
        options = {"band": {"low": 0.0, "high": 1.0}}.get(method, {})
        found[draw(method, np.ones(6), keys, budget, seed=seed, **options)] += 1
    p = budget / 6
    assert np.all(np.abs(found / n - p) < 4.5 * math.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("method", SIMPLE)
@pytest.mark.parametrize("class_balanced", [False, True])
def test_a_draw_does_not_depend_on_the_order_of_the_examples(method, class_balanced):
    rng = np.random.default_rng(1)
    scores, labels = rng.integers(0, 9, 200).astype(float), rng.integers(0, 3, 200)
    keys, shuffled = np.array(keys_of(200)), rng.permutation(200)
    options = OPTIONS.get(method, {})

    def drawn(order):
        at = draw(
            method, scores[order], keys[order].tolist(), 40, seed=3, labels=labels[order],
            class_balanced=class_balanced, **options,
        )  # fmt: skip
        return keys[order][at].tolist()

    assert drawn(np.arange(200)) == drawn(shuffled)


@pytest.mark.parametrize("method", SIMPLE)
@pytest.mark.parametrize("class_balanced", [False, True])
def test_subsets_of_one_seed_nest_as_the_budget_grows(method, class_balanced):
    rng = np.random.default_rng(2)
    scores, labels, keys = rng.gamma(1, size=90), np.repeat([0, 1, 2], [5, 25, 60]), keys_of(90)
    before: set[int] = set()
    for budget in range(1, 50):
        options = {"band": {"low": 0.1, "high": 0.95}}.get(method, {})
        now = set(
            draw(
                method, scores, keys, budget, labels=labels,
                class_balanced=class_balanced, **options,
            ).tolist()
        )  # fmt: skip
        assert before < now
        before = now


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=30), st.integers(0, 2**63), st.data())
@settings(deadline=None, max_examples=30)
def test_any_finite_scores_give_the_budget_without_repeats(scores, seed, data):
    budget = data.draw(st.integers(1, len(scores)))
    for method in ("random", "max_gradient", "gradient_cdf", "easiest"):
        found = draw(method, np.array(scores), keys_of(len(scores)), budget, seed=seed)
        assert len(set(found.tolist())) == budget


def test_another_seed_draws_another_subset():
    scores, keys = np.ones(1000), keys_of(1000)
    drawn = [set(draw("random", scores, keys, 100, seed=seed).tolist()) for seed in range(3)]
    assert all(len(a & b) < 40 for a, b in itertools.combinations(drawn, 2))


def test_all_zero_scores_draw_uniformly_and_say_so(caplog):
    with caplog.at_level(logging.WARNING):
        found = draw("gradient_cdf", np.zeros(50), keys_of(50), 10)
    assert found.tolist() == draw("random", np.zeros(50), keys_of(50), 10).tolist()
    assert "all 50 scores are 0; the draw is uniform" in caplog.text


def test_zero_scores_come_last():
    scores = np.r_[np.zeros(5), np.full(3, 1e-300)]
    assert set(draw("gradient_cdf", scores, keys_of(8), 3).tolist()) == {5, 6, 7}


def test_a_missing_score_is_refused_by_key_unless_told_otherwise():
    scores = np.array([1.0, np.nan, 3.0, np.inf, 2.0])
    with pytest.raises(DataError, match="got 2 that are not: train/000001, train/000003"):
        draw("max_gradient", scores, keys_of(5), 2)
    drop = draw("max_gradient", scores, keys_of(5), 3, missing="drop")
    assert drop.tolist() == [2, 4, 0]
    with pytest.raises(ConfigError, match=r"budget must be in \[1, 3\], got 4"):
        draw("max_gradient", scores, keys_of(5), 4, missing="drop")
    hardest = draw("max_gradient", scores, keys_of(5), 5, missing="hardest")
    assert set(hardest[:3].tolist()) == {1, 2, 3}
    easiest = draw("max_gradient", scores, keys_of(5), 5, missing="easiest")
    assert set(easiest[2:].tolist()) == {0, 1, 3}
    with pytest.raises(ConfigError, match="missing must be one of"):
        draw("max_gradient", scores, keys_of(5), 5, missing="zero")


@pytest.mark.parametrize(("missing", "end"), [("hardest", 0.1), ("easiest", 0.9)])
def test_a_missing_probability_of_the_label_is_filled_from_its_own_hard_end(missing, end):
    """Of all columns it alone is higher for the easier."""
    values = np.array([0.1, 0.9, np.nan, 0.5])
    columns = {"dual": values, "mean_probability": values}
    rows = Rows([ArrayBatch(columns, keys_of(4))], tuple(columns), missing=missing)
    assert rows.fill == pytest.approx({"dual": 1 - end, "mean_probability": end})


@pytest.mark.parametrize(
    ("size", "classes", "fraction", "said"),
    [
        (1000, 100, 0.05, "asks for 50 of 1000 rows, and 0 are left out: 100 classes of 10 to 10"),
        (10, 1, 0.05, "asks for 0.5 of 10 rows, and 0 are left out"),
        (1200, 100, 0.05, "asks for 60 of 1200 rows, and 100 are left out"),
        (1000, 10, 0.05, ""),
        (1000, 100, 0.1, ""),
        (1000, 100, 0.0, ""),
    ],
)
def test_extremes_that_rounding_leaves_in_are_said(size, classes, fraction, said, caplog):
    labels = np.arange(size) % classes
    scores = np.random.default_rng(0).random(size)
    given = {"labels": labels, "class_balanced": classes > 1, "drop_fraction": fraction}
    for method in ("non_extreme_max_gradient", "ccs"):
        caplog.clear()
        draw(method, scores, keys_of(size), min(size // 2, classes * 3), **given)
        assert (said in caplog.text) if said else not caplog.text


@pytest.mark.parametrize("missing", ["drop", "hardest", "easiest"])
def test_scores_that_are_all_missing_are_refused(missing):
    with pytest.raises(DataError, match="at least one finite score"):
        draw("max_gradient", np.full(3, np.nan), keys_of(3), 1, missing=missing)


@pytest.mark.parametrize("budget", [-1, 0, 6])
def test_an_impossible_budget_is_refused(budget):
    with pytest.raises(ConfigError, match=rf"budget must be in \[1, 5\], got {budget}"):
        draw("random", np.ones(5), keys_of(5), budget)


def test_wrong_use_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'max_gradient'"):
        check_method("max_gradients")
    with pytest.raises(ConfigError, match="option of non_extreme_max_gradient must be one of"):
        draw("non_extreme_max_gradient", np.ones(5), keys_of(5), 1, drop=0.1)
    with pytest.raises(ConfigError, match="random takes no options, got 'drop_fraction'"):
        draw("random", np.ones(5), keys_of(5), 1, drop_fraction=0.1)
    with pytest.raises(ConfigError, match=r"drop_fraction must be in \[0, 1\)"):
        draw("non_extreme_max_gradient", np.ones(5), keys_of(5), 1, drop_fraction=1.0)
    with pytest.raises(ConfigError, match=r"in \[1, 90\] once 10 extremes are left out, got 95"):
        draw("non_extreme_max_gradient", np.ones(100), keys_of(100), 95, drop_fraction=0.1)
    with pytest.raises(DataError, match="scores of at least 0, got -1"):
        draw("gradient_cdf", np.array([1.0, -1.0]), keys_of(2), 1)
    with pytest.raises(ConfigError, match="needs a label for each key, got none"):
        draw("random", np.ones(5), keys_of(5), 1, class_balanced=True)
    with pytest.raises(ConfigError, match="of one length, got 5 of score and 4 keys"):
        draw("random", np.ones(5), keys_of(4), 1)
    with pytest.raises(DataError, match="keys must be unique, got 'a' twice"):
        draw("random", np.ones(2), ["a", "a"], 2)


def test_keys_of_one_hash_are_told_apart_by_the_keys(monkeypatch):
    """Equal hashes cost neither a row too many nor the independence of the order."""
    monkeypatch.setattr(
        "raygrad.selection.rows.key_hashes", lambda keys: np.zeros(len(keys), np.uint64)
    )
    keys = ["d", "b", "a", "c"]
    for budget in range(1, 5):
        for order in itertools.permutations(range(4)):
            found = draw("max_gradient", np.ones(4), [keys[at] for at in order], budget)
            assert [keys[order[at]] for at in found] == ["a", "b", "c", "d"][:budget]


def test_every_method_says_what_it_does_and_where_it_is_from():
    for name, method in METHODS.items():
        assert method.summary, name
        assert "\n" not in method.summary, name
        assert method.paper, name
        assert method.__doc__, name
