"""What findings and intervals claim, on data whose truth is known; the record has more of it."""

import math

import pytest

from benchmarks.statistics_claims import AT_SMALL_SHARES, SPREADS, coverage, sweeps, verdicts

NUMBER = 80


def at_most(share, number=NUMBER):
    """The share, and three standard errors of its estimate."""
    return share + 3 * math.sqrt(share * (1 - share) / number)


@pytest.mark.parametrize("spreads", SPREADS.values(), ids=SPREADS.keys())
def test_at_most_one_sweep_in_twenty_says_anything_false_of_equal_methods(spreads):
    found = verdicts(sweeps(NUMBER, 3, spreads, 0.0), 0.0)
    assert found["family_wise_error"] <= at_most(0.05)


@pytest.mark.parametrize("wide", AT_SMALL_SHARES.values(), ids=AT_SMALL_SHARES.keys())
def test_what_scatters_at_small_shares_alone_is_not_taken_for_a_difference(wide):
    """By the pooled spread alone 15% of such sweeps say something false; with five replicates."""
    found = verdicts(sweeps(NUMBER, 5, (1.0,) * 4, 0.0, at_small=wide), 0.0)
    assert found["family_wise_error"] <= at_most(0.05)


def test_four_standard_deviations_are_seen_with_three_replicates_and_named_first():
    found = verdicts(sweeps(NUMBER, 3, (1.0, 1.0, 1.0, 1.0), 4.0), 4.0)
    assert found["power"] >= 0.6
    assert found["family_wise_error"] <= at_most(0.05)
    assert found["first_sentence_right"] >= 0.99


@pytest.mark.parametrize("between", [0.0, 0.025])
def test_the_interval_over_scoring_networks_holds_the_mean_over_all_of_them(between):
    """A point of nine retrainings by three networks; over retrainings alone it would not."""
    number = 250
    held = coverage(number, 3, 3, between, 0.01)
    assert abs(held - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / number)
