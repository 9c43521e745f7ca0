"""Quotas: exact totals, no class over what it has, no class's count used for another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrad.errors import ConfigError
from raygrad.selection.quotas import even_quotas, proportional_quotas

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda c: sum(c) > 0)


@given(COUNTS, st.data())
def test_even_quotas_sum_to_the_budget_and_differ_by_at_most_one(counts, data):
    counts = np.array(counts)
    budget = data.draw(st.integers(0, int(counts.sum())))
    quotas = even_quotas(counts, budget)
    assert quotas.sum() == budget
    assert np.all((quotas >= 0) & (quotas <= counts))
    open_ones = quotas[quotas < counts]
    if open_ones.size:
        assert quotas.max() - open_ones.min() <= 1


@settings(max_examples=30)
@given(COUNTS)
def test_even_quotas_never_shrink_as_the_budget_grows(counts):
    counts = np.array(counts)
    before = np.zeros(len(counts), np.int64)
    for budget in range(int(counts.sum()) + 1):
        quotas = even_quotas(counts, budget)
        assert np.all(quotas >= before)
        before = quotas


@given(COUNTS, st.data())
def test_proportional_quotas_are_within_one_of_the_exact_share(counts, data):
    counts = np.array(counts)
    budget = data.draw(st.integers(0, int(counts.sum())))
    quotas = proportional_quotas(counts, budget)
    assert quotas.sum() == budget
    assert np.all(quotas <= counts)
    assert np.all(np.abs(quotas - counts * budget / counts.sum()) < 1)


def test_class_quotas_do_not_reuse_one_class_count():
    """A peer multiplies every class's quota from the last class's count; here each has its own."""
    assert proportional_quotas(np.array([60, 30, 10]), 10).tolist() == [6, 3, 1]
    assert even_quotas(np.array([60, 30, 1]), 11).tolist() == [5, 5, 1]


def test_largest_remainders_get_what_is_left():
    assert proportional_quotas(np.array([47, 33, 20]), 10).tolist() == [5, 3, 2]


@pytest.mark.parametrize("quotas", [even_quotas, proportional_quotas])
def test_a_budget_above_what_is_there_is_refused(quotas):
    with pytest.raises(ConfigError, match=r"budget must be in \[0, 5\], got 6"):
        quotas(np.array([2, 3]), 6)
