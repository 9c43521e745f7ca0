"""Analysis against counting by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from raygrad.errors import DataError
from raygrad.selection import analysis
from raygrad.selection.attributes import Bracket, Gain, attributes, estimate

RNG = np.random.default_rng(0)
SCORES = RNG.gamma(1, size=120)
LABELS = RNG.integers(0, 5, 120)


def test_label_entropy_is_that_of_the_top_k_counted_for_each_k():
    order = np.argsort(-SCORES)
    found = analysis.label_entropy(SCORES, LABELS)
    for k in range(1, 121):
        counts = Counter(LABELS[order[:k]].tolist()).values()
        assert found[k - 1] == pytest.approx(
            -sum(c / k * math.log(c / k) for c in counts), abs=1e-9
        )
    assert analysis.uniform_entropy(5) == pytest.approx(math.log(5))


def test_overlap_is_that_of_the_two_top_k_sets():
    other = SCORES + RNG.normal(size=120)
    found = analysis.overlap(SCORES, other)
    for k in range(1, 121):
        sets = [set(np.argsort(-s)[:k].tolist()) for s in (SCORES, other)]
        assert found[k - 1] == pytest.approx(len(sets[0] & sets[1]) / k)
    assert np.all(analysis.overlap(SCORES, SCORES) == 1.0)


def test_the_random_baseline_of_the_overlap_is_its_mean_over_random_orders():
    pairs = [analysis.overlap(RNG.random(60), RNG.random(60)) for _ in range(400)]
    assert np.abs(np.mean(pairs, axis=0) - analysis.random_overlap(60)).max() < 0.06


def test_rank_correlation_is_spearmans_with_ties():
    columns = np.stack([SCORES, np.round(SCORES), RNG.integers(0, 3, 120)], axis=1)
    assert analysis.rank_correlation(columns) == pytest.approx(stats.spearmanr(columns).statistic)


def test_a_constant_column_has_no_rank_correlation():
    found = analysis.rank_correlation(np.stack([SCORES, np.ones(120)], axis=1))
    assert math.isnan(found[0, 1])
    assert found[1, 1] == 1.0


def test_histograms_count_every_score_and_say_what_a_log_axis_leaves_out():
    counts, edges, out = analysis.histogram(SCORES, 10)
    assert (counts.sum(), len(edges), out) == (120, 11, 0)
    counts, edges, out = analysis.histogram(np.r_[SCORES, 0.0, 0.0], 10, log=True)
    assert (counts.sum(), out) == (120, 2)
    assert edges[0] == pytest.approx(SCORES.min())


@pytest.mark.parametrize("call", [analysis.top_order, analysis.histogram])
def test_missing_scores_are_refused(call):
    with pytest.raises(DataError, match="must be finite, got 1"):
        call(np.array([1.0, np.nan]))


def results(accuracies):
    """Makes a sweep of {(method, fraction): [accuracy of each seed]}."""
    rows = [(m, f, seed, a) for (m, f), of in accuracies.items() for seed, a in enumerate(of)]
    method, fraction, seed, accuracy = zip(*rows, strict=True)
    return {
        "network": ["net"] * len(rows), "protocol": ["equal_epochs"] * len(rows),
        "method": method, "keep_fraction": fraction, "seed": seed, "test_accuracy": accuracy,
    }  # fmt: skip


def test_simplicity_and_redundancy_by_hand():
    sweep = results(
        {
            ("random", 1.0): [0.9, 0.9],
            ("random", 0.1): [0.45, 0.45],
            ("random", 0.01): [0.0, 0.0],
            ("max_gradient", 0.1): [0.9, 0.9],
            ("max_gradient", 0.01): [0.0, 0.0],
        }
    )
    found = attributes(sweep, max_loss=0.0)[("net", "equal_epochs")]
    assert found.simplicity.mean == pytest.approx(0.5)
    random, best = found.redundancy["random"], found.redundancy["max_gradient"]
    assert (random.low, random.high, random.failed_at) == (0.0, pytest.approx(0.9), 0.1)
    assert (best.low, best.high) == (pytest.approx(0.9), pytest.approx(0.99))
    assert (found.best_method, found.gain.shown) == ("max_gradient", True)
    assert (found.gain.low, found.gain.high) == (pytest.approx(0), pytest.approx(0.99))


def test_a_data_set_that_any_subset_learns_is_simple_and_redundant():
    sweep = results({("random", f): [0.8, 0.8, 0.8] for f in (1.0, 0.1, 0.01)})
    found = attributes(sweep)[("net", "equal_epochs")]
    assert found.simplicity.mean == pytest.approx(1.0)
    bracket = found.redundancy["random"]
    assert (bracket.low, bracket.high, bracket.at_least) == (pytest.approx(0.99), 1.0, True)
    assert found.gain == Gain(0, 0, False)


def test_simplicity_begins_at_one_percent_by_the_line_between_the_fractions():
    sweep = results({("random", 1.0): [0.8], ("random", 0.1): [0.8], ("random", 0.001): [0.0]})
    found = attributes(sweep)[("net", "equal_epochs")]
    assert found.simplicity_from == 0.01
    assert found.simplicity.mean == pytest.approx((1 + 0.75) / 2)


def test_of_methods_that_leave_out_alike_random_is_the_best():
    same = [0.9, 0.9]
    sweep = results({("random", 1.0): same, ("random", 0.1): same, ("max_gradient", 0.1): same})
    assert attributes(sweep)[("net", "equal_epochs")].best_method == "random"


def test_a_dip_above_a_good_fraction_is_not_redundancy():
    """Accuracy must hold at every fraction from the one claimed up."""
    sweep = results({("random", 1.0): [0.9], ("random", 0.5): [0.5], ("random", 0.1): [0.9]})
    bracket = attributes(sweep)[("net", "equal_epochs")].redundancy["random"]
    assert (bracket.low, bracket.high, bracket.passed_at) == (0.0, 0.5, None)


def test_no_redundancy_is_read_between_two_measured_shares():
    """CIFAR-10 as recorded: nothing was measured between 20% and all the data."""
    sweep = results(
        {
            ("random", 1.0): [0.78, 0.776],
            ("random", 0.2): [0.66, 0.656],
            ("non_extreme_max_gradient", 0.2): [0.4, 0.39],
        }
    )
    found = attributes(sweep)[("net", "equal_epochs")]
    assert found.redundancy["random"] == Bracket(0.0, 0.8, None, 0.2, 2, 1.0)
    assert found.redundancy["non_extreme_max_gradient"].most_kept == 0.95
    assert not found.gain.shown


def test_a_bracket_says_the_fewest_seeds_that_it_rests_on():
    """Other shares than its ends decide nothing; networks count where several are."""
    sweep = results(
        {
            ("random", 1.0): [0.9] * 4,
            ("random", 0.7): [0.9],
            ("random", 0.5): [0.9] * 3,
            ("random", 0.2): [0.8] * 4,
            ("random", 0.1): [0.7],
            ("max_gradient", 0.5): [0.9],
        }
    )
    found = attributes(sweep)[("net", "equal_epochs")].redundancy
    assert (found["random"].num_seeds, found["max_gradient"].num_seeds) == (3, 1)
    sweep["score_seed"] = [seed // 2 for seed in sweep["seed"]]
    found = attributes(sweep)[("net", "equal_epochs")].redundancy
    assert (found["random"].num_seeds, found["max_gradient"].num_seeds) == (2, 1)


def test_a_share_at_the_margin_has_passed():
    """0.99 less 0.985 is half a point to a reader, though not in binary."""
    sweep = results({("random", 1.0): [0.99], ("random", 0.1): [0.985]})
    assert attributes(sweep)[("net", "equal_epochs")].redundancy["random"].passed_at == 0.1


def test_simplicitys_interval_is_over_means_per_scoring_network():
    sweep = results(
        {("random", 1.0): [0.9] * 6, ("random", 0.1): [0.8, 0.82, 0.7, 0.72, 0.6, 0.62]}
    )
    sweep["score_seed"] = [seed // 2 for seed in sweep["seed"]]
    sweep["seed"] = [seed % 2 for seed in sweep["seed"]]
    found = attributes(sweep)[("net", "equal_epochs")].simplicity
    means = [(1 + a / 0.9) / 2 for a in (0.81, 0.71, 0.61)]
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert (found.num_seeds, found.mean) == (3, pytest.approx(np.mean(means)))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_row_without_a_scoring_seed_may_hold_pandas_nan_for_it():
    """A column of numbers of which some are null is of floats, and of NaN, in pandas."""
    sweep = results({("random", 1.0): [0.9], ("random", 0.1): [0.8], ("mine", 0.1): [0.85]})
    sweep["score_seed"] = [0, 0, None]
    expected = repr(attributes(sweep))
    sweep["score_seed"] = [0.0, 0.0, math.nan]
    assert repr(attributes(sweep)) == expected
    assert repr(attributes({name: np.array(of) for name, of in sweep.items()})) == expected


def test_intervals_are_students_over_seeds():
    values = [0.1, 0.4, 0.3, 0.25]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = estimate(values)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert math.isnan(estimate([0.5]).low)


def test_a_sweep_without_random_or_without_full_data_is_refused():
    with pytest.raises(DataError, match="needs random subsets and keep_fraction 1"):
        attributes(results({("max_gradient", 0.1): [0.5], ("random", 1.0): [0.9]}))
    with pytest.raises(DataError, match="needs random subsets and keep_fraction 1"):
        attributes(results({("random", 0.1): [0.5]}))
    mixed = results({("random", 0.1): [0.5], ("random", 1.0): [0.9]})
    mixed = {name: [*of, *of] for name, of in mixed.items()}
    mixed["test_accuracy"][2] = 0.6
    with pytest.raises(DataError, match=r"got two for random at 0\.1, seed 0, of net"):
        attributes(mixed)
    with pytest.raises(DataError, match="must have the column seed"):
        attributes({"network": [], "method": [], "keep_fraction": []})


def test_a_failed_trial_counts_for_nothing():
    sweep = results({("random", 1.0): [0.9, 0.9], ("random", 0.1): [0.9, float("nan")]})
    assert attributes(sweep)[("net", "equal_epochs")].simplicity.num_seeds == 1
