"""Confident learning, against its definition written out in loops and against cleanlab itself."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from raygrad.audit.confident import (
    NONE,
    check_probabilities,
    class_thresholds,
    confident_classes,
    confident_joint,
    label_errors,
    log_odds,
    noise_odds,
    normalized_margin,
    self_confidence,
    suggested_labels,
    tempered_odds,
    threshold_margin,
)
from raygrad.errors import ConfigError, DataError


def planted(number=600, num_classes=4, noise=0.15, seed=0):
    """Labels of which a share is wrong, with probabilities that mostly know the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, number)
    wrong = rng.random(number) < noise
    labels = np.where(wrong, (truth + rng.integers(1, num_classes, number)) % num_classes, truth)
    logits = rng.normal(size=(number, num_classes))
    logits[np.arange(number), truth] += 3.0
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(1, keepdims=True), labels, wrong


def joint_in_loops(p, labels, num_classes):
    """Equations 1 and 2 of arXiv 1911.00068, one example at a time."""
    t = [np.mean([p[i][j] for i in range(len(p)) if labels[i] == j]) for j in range(num_classes)]
    counts = np.zeros((num_classes, num_classes), int)
    for i in range(len(p)):
        reached = [j for j in range(num_classes) if p[i][j] >= t[j]]
        if reached:
            counts[labels[i], max(reached, key=lambda j: p[i][j])] += 1
    return np.array(t), counts


def test_thresholds_and_joint_are_their_definition():
    p, labels, _ = planted()
    thresholds, counts = joint_in_loops(p, labels, 4)
    np.testing.assert_allclose(class_thresholds(p, labels), thresholds)
    found = confident_classes(p, thresholds)
    np.testing.assert_array_equal(confident_joint(labels, found, 4), counts)
    assert (found == NONE).sum() == len(labels) - counts.sum()


def test_rankings_are_their_definition():
    p, labels, _ = planted(50)
    for i, y in enumerate(labels):
        others = max(p[i][k] for k in range(4) if k != y)
        assert normalized_margin(p, labels)[i] == pytest.approx((1 + others - p[i][y]) / 2)
        assert self_confidence(p, labels)[i] == pytest.approx(1 - p[i][y])
    assert (suggested_labels(p, labels) == p.argmax(1)).all()


def test_each_ranking_finds_the_planted_labels():
    from sklearn.metrics import roc_auc_score

    p, labels, wrong = planted()
    for values in (
        self_confidence(p, labels),
        normalized_margin(p, labels),
        threshold_margin(p, labels, class_thresholds(p, labels)),
    ):
        assert roc_auc_score(wrong, values) > 0.95


def test_cleanlab_counts_and_ranks_the_same():
    count = pytest.importorskip("cleanlab.count")
    rank = pytest.importorskip("cleanlab.rank")
    p, labels, _ = planted()
    ours = confident_joint(labels, confident_classes(p, class_thresholds(p, labels)), 4)
    theirs = count.compute_confident_joint(labels, p, calibrate=False)
    np.testing.assert_array_equal(ours, theirs)
    errors = label_errors(labels, confident_classes(p, class_thresholds(p, labels)), 4)
    # It rounds to whole examples.
    np.testing.assert_allclose(errors.joint, count.estimate_joint(labels, p), atol=1 / 600)
    for name, mine in (
        ("self_confidence", 1 - self_confidence(p, labels)),
        ("normalized_margin", 1 - normalized_margin(p, labels)),
    ):
        theirs = rank.get_label_quality_scores(labels, p, method=name)
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    theirs = rank.get_label_quality_scores(
        labels, p, method="normalized_margin", adjust_pred_probs=True
    )
    mine = 1 - threshold_margin(p, labels, class_thresholds(p, labels))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_the_number_of_wrong_labels_is_near_what_was_planted_and_within_its_interval():
    """Of 40 data sets of calibrated probabilities, the interval holds the truth in most."""
    held = 0
    for seed in range(40):
        p, labels, wrong = planted(2000, noise=0.1, seed=seed)
        errors = label_errors(labels, confident_classes(p, class_thresholds(p, labels)), 4)
        assert errors.low <= errors.num_wrong <= errors.high
        assert abs(errors.num_wrong - wrong.sum()) < 0.35 * wrong.sum()
        held += errors.low <= wrong.sum() <= errors.high
    assert held >= 28


@pytest.mark.parametrize("undecided", [0, 40])
def test_where_nothing_is_found_the_interval_is_of_what_would_show_nothing(undecided):
    """60 that are right leave room for the share that gives 60 such with a chance of 5%."""
    labels = np.arange(60 + undecided) % 3
    found = np.where(np.arange(len(labels)) < 60, labels, NONE)
    errors = label_errors(labels, found, 3)
    assert (errors.num_wrong, errors.low) == (0, 0)
    assert (1 - errors.high / len(labels)) ** 60 == pytest.approx(0.05)
    nothing = label_errors(labels, np.full(len(labels), NONE), 3)
    assert (nothing.low, nothing.num_wrong, nothing.high) == (0, 0, len(labels))


def test_log_odds_are_the_margin_of_the_logits_and_finite_where_a_probability_is_0():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 5)) * 9, rng.integers(0, 5, 50)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    wanted = [max(np.delete(z, y)) - z[y] for z, y in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(log_odds(p, labels), wanted, atol=1e-9)
    sure = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
    found = log_odds(sure, np.array([0, 1]))
    assert np.isfinite(found).all()
    assert found[0] == -found[1] < 0


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_tempered_odds_go_from_the_order_of_the_loss_to_the_log_odds(weight):
    """Of the classes but the label's the likeliest counts, by the weight."""
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.full(5, 0.3), 50), rng.integers(0, 5, 50)
    other = np.array([np.delete(row, y).max() for row, y in zip(p, labels, strict=True)])
    wanted = weight * np.log(other) - np.log(p[np.arange(50), labels])
    np.testing.assert_allclose(tempered_odds(p, labels, weight), wanted, atol=1e-9)
    loss, odds = -np.log(1 - self_confidence(p, labels)), log_odds(p, labels)
    same = {0.0: loss, 1.0: odds}.get(weight)
    assert same is None or (np.argsort(tempered_odds(p, labels, weight)) == np.argsort(same)).all()
    sure = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
    found = tempered_odds(sure, np.array([0, 1]), weight)
    assert np.isfinite(found).all()
    assert found[0] < found[1]


def test_noise_odds_are_the_posterior_under_errors_that_are_counted_in_a_loop():
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.full(4, 0.5), 30), rng.integers(0, 4, 30)
    made = np.zeros((4, 4))
    for row, y in zip(p, labels, strict=True):
        joint = [row[k] * (0.97 if k == y else 0.01) for k in range(4)]
        for k in set(range(4)) - {y}:
            made[k, y] += joint[k] / sum(joint)
    weights = (made + made.sum() / 12) / (2 * made.sum() / 12)
    wanted = [
        np.log(sum(row[k] * weights[k, y] for k in range(4) if k != y) / row[y])
        for row, y in zip(p, labels, strict=True)
    ]
    np.testing.assert_allclose(noise_odds(p, labels), wanted, atol=1e-9)
    two = np.array([[1.0, 0.0], [1.0, 0.0], [0.2, 0.8]], np.float32)
    assert np.isfinite(noise_odds(two, np.array([0, 1, 1]))).all()


def test_noise_odds_find_errors_between_two_classes_that_the_loss_takes_for_any():
    p, labels, wrong = planted(4000, noise=0.0, seed=1)
    rng = np.random.default_rng(2)
    changed = np.flatnonzero(labels == 0)[:120]
    labels = labels.copy()
    labels[changed] = 1
    wrong = np.zeros(len(labels), bool)
    wrong[changed] = True
    p = 0.7 * p + 0.3 * rng.dirichlet(np.full(4, 0.3), len(p))
    by = [average_precision_score(wrong, x(p, labels)) for x in (noise_odds, self_confidence)]
    assert by[0] > by[1] + 0.05


def test_a_class_without_examples_or_without_confidence_breaks_nothing():
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.3, 0.3, 0.4]])
    labels = np.array([0, 0, 0])
    thresholds = class_thresholds(p, labels)
    assert np.isinf(thresholds[1:]).all()
    found = confident_classes(p, thresholds)
    assert found.tolist() == [0, 0, NONE]
    assert label_errors(labels, found, 3).num_wrong == 0
    assert np.isfinite(threshold_margin(p, labels, thresholds)).all()


def test_what_is_no_distribution_over_the_classes_is_refused():
    p, labels, _ = planted(10)
    with pytest.raises(DataError, match="sum to 1, got a sum of 2"):
        check_probabilities(2 * p, labels)
    with pytest.raises(DataError, match=r"classes 0\.\.3, got 7"):
        check_probabilities(p, np.full(10, 7))
    with pytest.raises(ConfigError, match="got \\[10, 4\\] for 9"):
        check_probabilities(p, labels[:9])
    with pytest.raises(DataError, match="row 3"):
        check_probabilities(np.where(np.arange(10)[:, None] == 3, np.nan, p), labels)
