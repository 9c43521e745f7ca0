import math

import numpy as np
import pytest
from scipy import stats

from raygrad.report.intervals import correlation_interval, difference_interval, mean_interval

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_the_interval_of_a_mean_is_scipys_t_interval(n):
    x = RNG.normal(0.9, 0.01, n)
    low, high = stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
    got = mean_interval(x)
    assert (got.low, got.high) == pytest.approx((low, high), rel=1e-12)
    assert got.mean == pytest.approx(x.mean())
    assert got.n == n


def test_the_interval_of_a_difference_is_scipys_welch_interval():
    a, b = RNG.normal(0.9, 0.01, 5), RNG.normal(0.8, 0.05, 3)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.99)
    got = difference_interval(a, b, 0.99)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_one_value_has_no_interval():
    for got in (mean_interval([0.5]), difference_interval([0.5], [0.4, 0.5])):
        assert not got.known
        assert math.isnan(got.half_width)


def test_seeds_that_agree_by_rounding_do_not_make_an_interval_of_no_width():
    """Three seeds with the same accuracy on 360 test examples are not an exact mean.

    Where the number of test examples is not known, there is no interval at all.
    """
    same = [0.975] * 3
    assert not mean_interval(same).known
    assert not difference_interval(same, [0.97] * 3).known
    half = mean_interval(same, resolution=1 / 360).half_width
    sd = (1 / 360) / math.sqrt(12)
    assert half == pytest.approx(stats.t.ppf(0.975, 2) * sd / math.sqrt(3))
    difference = difference_interval(same, [0.975 - 0.4 / 360] * 3, resolution=1 / 360)
    assert difference.low < 0 < difference.high


def test_the_mean_interval_covers_the_truth_as_often_as_it_says():
    samples = RNG.normal(0.0, 1.0, (4000, 4))
    hits = [(i := mean_interval(row)).low <= 0 <= i.high for row in samples]
    assert abs(np.mean(hits) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 4000)


def test_the_correlations_interval_is_scipys():
    x = RNG.normal(size=20)
    y = x + RNG.normal(size=20)
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    got = correlation_interval(x, y)
    assert got.mean == pytest.approx(expected.statistic)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
