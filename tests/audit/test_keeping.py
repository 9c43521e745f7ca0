"""What goes first, and that a spread is the greedy one of its paper."""

import numpy as np

from raygrad.audit.keeping import LABEL, PICTURE, REPEAT, flawed, kept, redundant, spread_order


def test_one_of_each_group_stays_the_one_that_is_preferred():
    groups = np.array([0, 1, 0, -1, 1, 0])
    assert redundant(groups, np.array([2, 0, 1, 0, 0, 3])).tolist() == [
        True, False, False, False, True, True,
    ]  # fmt: skip


def test_flaws_go_before_anything_else_and_without_a_budget_alone():
    repeats, suspects, odd = (
        np.array(of, bool) for of in ([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0])
    )
    reasons = flawed(repeats, suspects, odd)
    assert reasons == [REPEAT, LABEL, PICTURE, ""]
    order = np.array([0.1, 0.2, 0.3, 0.9])
    assert kept(reasons, order, None).tolist() == [False, False, False, True]
    assert kept(reasons, order, 2).tolist() == [True, False, False, True]
    assert kept(reasons, order, 4).all()


def test_a_spread_is_farthest_first_within_each_group_and_nests():
    rng = np.random.default_rng(0)
    points, groups = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    hashes = rng.integers(0, 2**63, 40).astype(np.uint64)
    place = spread_order(points, groups, hashes)
    for group in (0, 1):
        at = np.flatnonzero(groups == group)
        order = at[np.argsort(place[at])]
        centre = points[at].mean(0)
        assert order[0] == at[((points[at] - centre) ** 2).sum(1).argmin()]
        for step in range(1, len(order)):
            before = points[order[:step]]
            gaps = [min(((points[i] - b) ** 2).sum() for b in before) for i in at]
            chosen = min(((points[order[step]] - b) ** 2).sum() for b in before)
            assert chosen >= max(gaps) - 1e-9


def test_a_spread_does_not_depend_on_the_order_of_the_examples():
    rng = np.random.default_rng(0)
    points, groups = rng.integers(0, 3, (30, 2)).astype(float), np.zeros(30, int)
    hashes = rng.integers(0, 2**63, 30).astype(np.uint64)
    order = rng.permutation(30)
    there = spread_order(points, groups, hashes)[order]
    np.testing.assert_array_equal(there, spread_order(points[order], groups[order], hashes[order]))
