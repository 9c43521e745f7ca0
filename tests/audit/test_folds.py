"""Folds are even and of keys alone; heads are the regression's minimum, of examples not seen."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from raygrad.audit.folds import (
    PENALTIES,
    fitted_head,
    fold_numbers,
    head_probabilities,
    head_trained_on,
)
from raygrad.errors import ConfigError


def clusters(number=300, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, number)
    features = rng.normal(size=(number, 5)) + 3 * np.eye(5)[truth]
    wrong = rng.random(number) < noise
    labels = np.where(wrong, (truth + 1) % 3, truth)
    return features.astype(np.float32), labels.astype(np.int64), wrong


def test_folds_are_even_within_classes_and_follow_the_keys():
    rng = np.random.default_rng(0)
    labels, hashes = rng.integers(0, 7, 500), rng.integers(0, 2**63, 500).astype(np.uint64)
    folds = fold_numbers(labels, hashes, 5)
    table = np.zeros((7, 5), int)
    np.add.at(table, (labels, folds), 1)
    assert np.ptp(table, axis=1).max() <= 1
    assert np.ptp(np.bincount(folds)) <= 1
    order = rng.permutation(500)
    np.testing.assert_array_equal(fold_numbers(labels[order], hashes[order], 5), folds[order])


def test_more_folds_than_examples_are_refused():
    with pytest.raises(ConfigError, match="at most the 3 examples, got 4"):
        fold_numbers(np.zeros(3, np.int64), np.arange(3, dtype=np.uint64), 4)


def test_a_head_is_the_minimum_that_a_library_finds():
    features, labels, _ = clusters()
    head = fitted_head(torch.from_numpy(features), torch.from_numpy(labels), 3, 1e-2)
    # scikit-learn minimises C sum(loss) + |w|^2 / 2: the same with C = 1 / (2 lambda N).
    theirs = LogisticRegression(C=1 / (2 * 1e-2 * len(labels)), tol=1e-8, max_iter=1000)
    theirs.fit(features, labels)
    np.testing.assert_allclose(head[:-1].T, theirs.coef_, atol=2e-3)


def test_an_examples_own_label_does_not_reach_its_probabilities():
    """With another label it has the same probabilities; examples of other folds have others."""
    features, labels, _ = clusters()
    folds = fold_numbers(labels, np.arange(300, dtype=np.uint64), 3)
    before = head_probabilities(features, labels, folds, 3, penalty=1e-2)
    changed = labels.copy()
    changed[7] = (changed[7] + 1) % 3
    after = head_probabilities(features, changed, folds, 3, penalty=1e-2)
    np.testing.assert_array_equal(before[7], after[7])
    assert np.abs(before - after)[folds != folds[7]].max() > 1e-4
    np.testing.assert_allclose(before.sum(1), 1, atol=1e-5)


def test_wrong_labels_are_those_of_least_probability():
    features, labels, wrong = clusters(noise=0.1)
    folds = fold_numbers(labels, np.arange(300, dtype=np.uint64), 5)
    own = head_probabilities(features, labels, folds, 3)[np.arange(300), labels]
    assert wrong[np.argsort(own)[: wrong.sum()]].mean() > 0.8


def test_a_head_of_some_examples_knows_nothing_of_the_others():
    """And is the minimum over those: scikit-learn's, on features standardised over them."""
    features, labels, _ = clusters()
    some = np.arange(300) % 3 == 0
    found = head_trained_on(features, labels, some, 3)
    changed = np.where(some, labels, (labels + 1) % 3)
    np.testing.assert_array_equal(found, head_trained_on(features, changed, some, 3))
    scaled = (features - features[some].mean(0)) / features[some].std(0, ddof=1)
    theirs = [
        LogisticRegression(C=1 / (2 * penalty * some.sum()), tol=1e-8, max_iter=1000)
        .fit(scaled[some], labels[some])
        .predict_proba(scaled)
        for penalty in PENALTIES
    ]
    assert min(np.abs(found - one).max() for one in theirs) < 2e-3
    assert (found.argmax(1) == labels)[~some].mean() > 0.9
