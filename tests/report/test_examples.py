import numpy as np
import pytest

from raygrad.report.examples import choose_examples, hardest_first
from raygrad.report.figures.images import Example, legend


def test_hardest_first_is_a_full_sort_with_missing_scores_last():
    values = np.array([1.0, np.nan, 3.0, np.inf, 2.0, -np.inf])
    assert hardest_first(values)[:4].tolist() == [3, 2, 4, 0]
    assert set(hardest_first(values)[4:].tolist()) == {1, 5}


def test_a_small_data_set_is_shown_whole():
    values = np.random.default_rng(0).random(50)
    assert sorted(choose_examples(values, np.zeros(50, int), 50)) == list(range(50))


@pytest.mark.parametrize("classes", [1, 10, 300])
def test_the_choice_holds_the_extremes_every_band_and_the_hardest_of_each_class(classes):
    rng = np.random.default_rng(classes)
    values = rng.lognormal(size=20_000)
    labels = rng.integers(0, classes, 20_000)
    limit = 1000
    chosen = choose_examples(values, labels, limit)
    assert len(chosen) == len(set(chosen.tolist())) <= limit
    assert len(chosen) > 0.9 * limit
    order = np.argsort(-values)
    assert set(order[:400].tolist()) <= set(chosen.tolist())
    assert set(order[-100:].tolist()) <= set(chosen.tolist())
    assert values[chosen].tolist() == sorted(values[chosen], reverse=True)
    rank = np.argsort(order)
    bands = np.histogram(rank[chosen], bins=20, range=(0, 20_000))[0]
    assert (bands >= 5).all()
    if classes <= 200:
        for label in range(classes):
            mine = np.flatnonzero(labels == label)
            assert mine[np.argmax(values[mine])] in chosen


def test_a_legend_of_long_class_names_takes_two_lines_and_cuts_neither_word():
    def example(label, prediction):
        return Example("k", label, prediction, 1.0, "hardest")

    assert legend(example("deer", "deer")) == "deer"
    assert legend(example("deer", "horse")) == "deer, not horse"
    assert legend(example("truck", "automobile")) == "truck,\nnot automobile"
    widest = max(legend(example("x" * 40, "y" * 40)).split("\n"), key=len)
    assert len(widest) == len("deer, not horse"), "the longest line that a tile has room for"
