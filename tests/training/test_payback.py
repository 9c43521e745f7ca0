"""Break-even: only for subsets as good as all the data, against random subsets as good as they."""

import pytest

from raygrad.training.payback import Cell, paybacks

FULL = Cell(0.99, 100.0)


def found(cells, full=FULL, spent_s=200.0, chance=0.1):
    return {
        (p.method, p.keep_fraction): p
        for p in paybacks(cells, full, spent_s, margin=0.005, chance=chance)
    }


def test_a_subset_that_is_quick_and_useless_is_never_asked():
    cells = {"random": {0.1: Cell(0.5, 5.0)}, "max_gradient": {0.1: Cell(0.4, 1.0)}}
    assert found(cells) == {}


def test_scores_are_set_against_the_smallest_random_subset_that_is_as_accurate():
    cells = {
        "random": {0.1: Cell(0.95, 10.0), 0.3: Cell(0.988, 30.0), 0.5: Cell(0.989, 50.0)},
        "max_gradient": {0.1: Cell(0.987, 10.0), 0.3: Cell(0.992, 30.0)},
    }
    tenth, third = found(cells).values()
    assert (tenth.keep_fraction, tenth.instead, tenth.saved_s) == (0.1, 0.3, 20.0)
    assert tenth.retrainings == 10
    # Nothing random is as accurate: all the data is what would have been trained on.
    assert (third.instead, third.saved_s, third.retrainings) == (1.0, 70.0, 3)
    assert third.accuracy_lost == pytest.approx(-0.002)


def test_where_random_is_as_good_at_the_same_share_scores_are_never_paid():
    cells = {"random": {0.3: Cell(0.99, 30.0)}, "max_gradient": {0.3: Cell(0.99, 31.0)}}
    (only,) = found(cells).values()
    assert only.retrainings is None


def test_a_network_that_learned_nothing_has_no_break_even():
    cells = {"random": {0.3: Cell(0.1, 3.0)}, "max_gradient": {0.3: Cell(0.1, 1.0)}}
    assert found(cells, full=Cell(0.104, 9.0)) == {}


def test_a_mean_at_the_margin_is_within_it():
    cells = {"random": {}, "max_gradient": {0.5: Cell(0.985, 50.0)}}
    assert list(found(cells)) == [("max_gradient", 0.5)]
