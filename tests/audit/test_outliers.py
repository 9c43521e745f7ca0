"""Distances are those of the definition, and what is no picture is named."""

import numpy as np

from raygrad.audit.outliers import class_distances, far_from_all, odd_pictures
from raygrad.audit.pictures import picture_facts


def test_distances_are_mahalanobis_to_the_nearest_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    features = rng.normal(size=(400, 4)) * [1, 2, 3, 4] + 10 * np.eye(4)[labels]
    centred = features - features.mean(0)
    means = np.stack([centred[labels == c].mean(0) for c in range(3)])
    within = centred - means[labels]
    covariance = within.T @ within / (400 - 3)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 4 * np.eye(4)
    inverse = np.linalg.inv(shrunk)
    slow = [min(np.sqrt((x - m) @ inverse @ (x - m)) for m in means) for x in centred]
    np.testing.assert_allclose(class_distances(features, labels), slow / np.median(slow), rtol=1e-6)


def test_what_lies_far_from_every_class_stands_out_and_few_others_do():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 1000)
    features = rng.normal(size=(1000, 100)) + 8 * np.eye(100)[labels]
    features[:5] += 12 * rng.choice([-1, 1], size=(5, 100))
    found = far_from_all(class_distances(features, labels))
    assert found[:5].all()
    assert found[5:].sum() <= 2


def test_blank_one_coloured_and_tiny_pictures_are_named():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    blank = np.full((40, 40, 3), 90, np.uint8)
    nearly = blank.copy()
    nearly[:3, :3] = 255
    nearly[20:23, :3] = 0
    facts = [picture_facts(p) for p in (scene, blank, nearly, scene[:6, :6], scene, scene)]
    found = odd_pictures(
        np.array([f.width for f in facts]),
        np.array([f.height for f in facts]),
        np.array([f.contrast for f in facts]),
        np.array([f.one_colour for f in facts]),
    )
    assert found == ["", "blank", "nearly one colour", "tiny", "", ""]


def test_features_that_do_not_differ_are_no_outliers():
    assert not far_from_all(class_distances(np.ones((10, 3)), np.zeros(10, np.int64))).any()
