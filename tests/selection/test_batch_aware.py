"""Batch-aware selection against gradients written out."""

import numpy as np
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.selection import draw
from raygrad.selection.analysis import label_entropy
from raygrad.selection.batch_aware import draw_batch_aware, mean_alignment


def data(number=400, num_classes=5, width=8, seed=0):
    """Makes errors and features of a classifier whose class 0 is the hardest and most alike."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, number)
    logits = rng.normal(size=(number, num_classes))
    logits[labels == 0, 1] += 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    features = np.abs(rng.normal(size=(number, width))) + np.eye(num_classes, width)[labels]
    return p - np.eye(num_classes)[labels], features, labels, [f"k{at}" for at in range(number)]


def written_out(errors, features):
    return np.einsum("nc,nd->ncd", errors, features).reshape(len(errors), -1)


def test_mean_alignment_is_that_of_the_gradients_written_out():
    errors, features, _, _ = data(60)
    gradients = written_out(errors, features)
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(60, dtype=bool)]
    assert mean_alignment(errors, features) == pytest.approx(cosines.mean())


def test_with_all_candidates_it_is_the_greedy_of_its_formula():
    errors, features, labels, keys = data(50)
    gradients, chosen = written_out(errors, features), []
    norms = np.linalg.norm(gradients, axis=1)
    unit = gradients / norms[:, None]
    for step in range(20):
        total = unit[chosen].sum(axis=0)
        cosine = unit @ total / max(np.linalg.norm(total), 1e-15)
        counts = np.bincount(labels[chosen], minlength=5)[labels]
        gain = norms * (1 - np.clip(cosine, 0, 1)) * np.exp(-(counts * 5 / max(step, 1) - 1))
        gain[chosen] = -1
        chosen.append(int(np.argmax(gain)))
    found = draw_batch_aware(errors, features, labels, keys, 20, num_candidates=50)
    assert found.tolist() == chosen


def test_it_has_more_even_classes_and_less_alignment_than_max_gradient():
    errors, features, labels, keys = data()
    norms = np.linalg.norm(errors, axis=1) * np.linalg.norm(features, axis=1)
    greedy = draw_batch_aware(errors, features, labels, keys, 60, num_candidates=64)
    top = draw("max_gradient", norms, keys, 60)
    entropies = [label_entropy(np.arange(60.0), labels[at])[-1] for at in (greedy, top)]
    alignments = [mean_alignment(errors[at], features[at]) for at in (greedy, top)]
    assert entropies[0] > entropies[1] + 0.1
    assert alignments[0] < alignments[1] - 0.05
    drawn = draw("random", norms, keys, 60)
    assert norms[greedy].mean() > norms[drawn].mean()


def test_a_draw_does_not_depend_on_order_nests_and_has_no_repeats():
    errors, features, labels, keys = data()
    shuffled = np.random.default_rng(1).permutation(len(keys))
    one = draw_batch_aware(errors, features, labels, keys, 80, num_candidates=16)
    other = draw_batch_aware(
        errors[shuffled], features[shuffled], labels[shuffled],
        [keys[at] for at in shuffled], 80, num_candidates=16,
    )  # fmt: skip
    assert one.tolist() == shuffled[other].tolist()
    assert len(set(one.tolist())) == 80
    few = draw_batch_aware(errors, features, labels, keys, 30, num_candidates=16)
    assert few.tolist() == one[:30].tolist()


@pytest.mark.parametrize("budget", [1, 7, 399, 400])
def test_blocks_give_the_exact_budget(budget):
    errors, features, labels, keys = data()
    found = draw_batch_aware(
        errors, features, labels, keys, budget, num_candidates=8, block_size=70
    )
    assert len(set(found.tolist())) == budget


def test_examples_without_a_gradient_are_chosen_last():
    errors, features, labels, keys = data(30)
    errors[:10] = 0
    found = draw_batch_aware(errors, features, labels, keys, 20, num_candidates=30)
    assert set(found.tolist()) == set(range(10, 30))


def test_wrong_use_is_refused():
    errors, features, labels, keys = data(10)
    with pytest.raises(ConfigError, match=r"budget must be in \[1, 10\], got 11"):
        draw_batch_aware(errors, features, labels, keys, 11)
    with pytest.raises(ConfigError, match="num_candidates and block_size"):
        draw_batch_aware(errors, features, labels, keys, 1, num_candidates=0)
    with pytest.raises(DataError, match="must match"):
        draw_batch_aware(errors[:5], features, labels, keys, 1)
    errors[0] = np.nan
    with pytest.raises(DataError, match="must be finite"):
        draw_batch_aware(errors, features, labels, keys, 1)


def test_draw_knows_it_by_name_and_says_what_it_needs():
    errors, features, labels, keys = data(80)
    scores = {"errors": errors, "features": features}
    found = draw("batch_aware", scores, keys, 9, seed=3, labels=labels, balance=0.5)
    expected = draw_batch_aware(errors, features, labels, keys, 9, seed=3, balance=0.5)
    assert found.tolist() == expected.tolist()
    with pytest.raises(ConfigError, match="needs the arrays errors, features, got errors"):
        draw("batch_aware", {"errors": errors}, keys, 9, labels=labels)
    with pytest.raises(ConfigError, match="needs a label for each key"):
        draw("batch_aware", scores, keys, 9)
    with pytest.raises(ConfigError, match="evens classes by itself"):
        draw("batch_aware", scores, keys, 9, labels=labels, class_balanced=True)
    with pytest.raises(ConfigError, match="option of batch_aware"):
        draw("batch_aware", scores, keys, 9, labels=labels, balanc=1)
