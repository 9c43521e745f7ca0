"""The k-th smallest by a sample and a count: exact against a sort, or not given at all."""

import itertools

import numpy as np
import pytest

from raygrad.selection import bracket
from raygrad.selection import order as order_module
from raygrad.selection.bracket import bracketed
from raygrad.selection.order import LAST, Ordering, cut
from raygrad.selection.rows import ArrayBatch, Rows

NUMBER = 4000


def make(kind, dtype=np.float32):
    rng = np.random.default_rng(1)
    return {
        "plain": rng.normal(size=NUMBER),
        "tied": rng.integers(0, 40, NUMBER) / 8,
        "sorted": np.sort(rng.normal(size=NUMBER)),
        "infinite": np.where(rng.random(NUMBER) < 0.3, np.inf, rng.normal(size=NUMBER)),
    }[kind].astype(dtype)


def rows_of(values, groups):
    """Returns rows in uneven batches; the column x is finite, as a score is."""
    cuts = [0, 1, 700, 700, 2500, len(values)]
    batches = [
        ArrayBatch(
            {"x": np.nan_to_num(values[a:b], posinf=9), "raw": values[a:b], "group": groups[a:b]},
            [f"k{at}" for at in range(a, b)],
        )
        for a, b in itertools.pairwise(cuts)
    ]
    return Rows(batches, ("x",))


def found_by(values, groups, ranks, max_candidates=2**21, wanted=None):
    counts = np.bincount(groups[groups >= 0], minlength=len(ranks))
    wanted = np.ones(len(ranks), bool) if wanted is None else wanted
    return bracketed(
        rows_of(values, groups),
        lambda view: view.batch.column("group"),
        lambda view: view.batch.column("raw"),
        wanted, np.asarray(ranks), counts, max_candidates,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "tied", "sorted", "infinite"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sampled", [100, 2**18])
def test_answers_equal_a_sort_in_every_group(monkeypatch, kind, dtype, sampled):
    monkeypatch.setattr(bracket, "SAMPLED", sampled)
    values = make(kind, dtype)
    groups = np.random.default_rng(2).integers(-1, 3, NUMBER)
    sizes = np.bincount(groups[groups >= 0])
    for share in (0.0005, 0.1, 0.5, 0.999):
        ranks = np.maximum(1, (share * sizes).astype(np.int64))
        numbers, below, level = found_by(values, groups, ranks)
        for group, rank in enumerate(ranks):
            of = np.sort(values[groups == group])
            assert numbers[group] == of[rank - 1]
            assert below[group] == (of < of[rank - 1]).sum()
            assert level[group] == (of == of[rank - 1]).sum()


@pytest.mark.parametrize("rank", [1, 2, 399, 400, NUMBER])
def test_answers_equal_a_sort_where_all_rows_are_one_group(monkeypatch, rank):
    monkeypatch.setattr(bracket, "SAMPLED", 500)
    values = make("plain")
    rows = rows_of(values, np.zeros(NUMBER, np.int64))
    one = np.ones(1, bool), np.array([rank]), np.array([NUMBER])
    numbers, below, level = bracketed(
        rows, lambda view: view.classes(), lambda view: view.batch.column("raw"), *one, 2**21
    )
    assert (numbers[0], below[0], level[0]) == (np.sort(values)[rank - 1], rank - 1, 1)


def test_a_sample_that_misleads_gives_nothing_rather_than_a_wrong_answer(monkeypatch):
    """Every row that the sample sees is large, and every other is small."""
    monkeypatch.setattr(bracket, "SAMPLED", 100)
    rng = np.random.default_rng(0)
    values = rng.random(NUMBER)
    for start in (0, 1, 700, 2500):
        values[start::40] += 100
    values[700:2500][::40] += 100
    assert found_by(values, np.zeros(NUMBER, np.int64), [NUMBER // 2]) is None


def test_too_many_rows_between_give_nothing():
    values = make("tied")
    groups = np.zeros(NUMBER, np.int64)
    assert found_by(values, groups, [NUMBER // 2], max_candidates=90) is None
    assert found_by(values, groups, [NUMBER // 2], max_candidates=NUMBER) is not None


def test_groups_that_are_not_wanted_cost_nothing():
    values, groups = make("plain"), np.arange(NUMBER) % 2
    wanted = np.array([False, True])
    numbers, _, level = found_by(values, groups, [NUMBER, 50], wanted=wanted)
    assert numbers[1] == np.sort(values[1::2])[49]
    assert level.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["plain", "tied", "infinite"])
def test_a_cut_by_bracket_is_the_cut_by_histogram(monkeypatch, kind):
    """The rows let through are the same, and hashes are read only where they decide."""
    values, groups = make(kind), np.arange(NUMBER) % 3
    rows = rows_of(values, groups)
    ordering = Ordering(
        lambda view: view.batch.column("group"), 3, 5, lambda view: view.batch.column("raw")
    )
    counts, ranks = np.bincount(groups), np.array([0, 130, NUMBER // 3])
    by_bracket = cut(rows, ordering, ranks, counts, max_candidates=NUMBER // 4)
    monkeypatch.setattr(order_module, "bracketed", lambda *_: None)
    by_histogram = cut(rows, ordering, ranks, counts, max_candidates=10)
    assert by_bracket.ties[2] == LAST
    both = rows.map(by_bracket.admitted), rows.map(by_histogram.admitted)
    for one, other in zip(*both, strict=True):
        assert one.tolist() == other.tolist()
    assert sum(len(some) for some in rows.map(by_bracket.admitted)) == ranks.sum()
