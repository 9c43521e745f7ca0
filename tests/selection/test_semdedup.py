"""SemDeDup against its authors' matrix of all pairs, and moderate from features."""

import numpy as np
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.selection import draw
from raygrad.selection.coverage import feature_distances
from raygrad.selection.semdedup import copy_similarity, spherical_centres, unit
from tests.selection.test_comparing import in_order


def features_of(number, seed=0):
    """Three directions with noise, and five near copies of the first rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, 16))
    found = centres[rng.integers(0, 3, number)] + 0.4 * rng.normal(size=(number, 16))
    found[-5:] = found[:5] * 1.7 + 0.01 * rng.normal(size=(5, 16))
    return found.astype(np.float32), [f"k{at}" for at in range(number)]


def authors_similarity(features, order, clusters, centres):
    """As in the authors' code: an upper triangle a cluster, farthest from its centre first."""
    found = np.zeros(len(features))
    points = features / np.linalg.norm(features, axis=1, keepdims=True)
    for one in range(len(centres)):
        members = [at for at in order if clusters[at] == one]
        members.sort(key=lambda at: points[at] @ centres[one])
        triangle = np.triu(points[members] @ points[members].T, k=1)
        for place, at in enumerate(members):
            found[at] = max(triangle[:, place].max(), 0.0)
    return found


@pytest.mark.parametrize("num_clusters", [1, 3, 7])
def test_each_has_the_cosine_to_the_likest_before_it_in_its_cluster(num_clusters):
    features, keys = features_of(120)
    order = in_order(keys)
    found = copy_similarity(features, order, num_clusters=num_clusters)
    centres = spherical_centres(features, order, num_clusters, np.random.default_rng([0]))
    clusters = (unit(features) @ centres.T).argmax(axis=1)
    expected = authors_similarity(features.astype(np.float64), order, clusters, centres)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_are_compared_whatever_a_block_holds(monkeypatch):
    features, keys = features_of(120)
    whole = copy_similarity(features, in_order(keys), num_clusters=2)
    monkeypatch.setattr("raygrad.selection.semdedup._CELLS", 100)
    np.testing.assert_allclose(
        copy_similarity(features, in_order(keys), num_clusters=2), whole, atol=1e-6
    )


def test_near_copies_are_left_out_first_and_the_threshold_is_said(caplog):
    features, keys = features_of(100)
    with caplog.at_level("INFO"):
        found = draw("semdedup", {"features": features}, keys, 95, labels=np.zeros(100))
    out = set(range(100)) - set(found.tolist())
    assert all((at % 95 if at >= 95 else at) < 5 for at in out), "one of each pair is out"
    assert len({at % 95 for at in out}) == 5
    assert "semdedup: what has a cosine above 0.9" in caplog.text


def test_centres_are_those_of_lloyds_rounds():
    """No example is nearer to another centre than to the mean of those that share its own."""
    features, keys = features_of(200)
    centres = spherical_centres(features, in_order(keys), 3, np.random.default_rng(0))
    nearest = (unit(features) @ centres.T).argmax(axis=1)
    for one in range(3):
        mean = unit(features[nearest == one]).sum(axis=0)
        np.testing.assert_allclose(centres[one], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("method", ["semdedup", "moderate"])
@pytest.mark.parametrize("class_balanced", [False, True])
def test_draws_from_features_nest_and_do_not_depend_on_order(method, class_balanced):
    features, keys = features_of(90)
    labels = np.arange(90) % 3
    shuffled = np.random.default_rng(1).permutation(90)
    options = {"class_balanced": class_balanced}
    found = draw(method, {"features": features}, keys, 40, labels=labels, **options)
    other = draw(
        method, {"features": features[shuffled]}, [keys[at] for at in shuffled], 40,
        labels=labels[shuffled], **options,
    )  # fmt: skip
    assert found.tolist() == shuffled[other].tolist()
    fewer = draw(method, {"features": features}, keys, 17, labels=labels, **options)
    assert set(fewer.tolist()) <= set(found.tolist())


def test_moderate_finds_its_distances_itself_and_in_pieces(monkeypatch):
    features, keys = features_of(90)
    labels = np.arange(90) % 3
    distances = feature_distances(features, labels)
    for label in range(3):
        members = features[labels == label].astype(np.float64)
        expected = np.linalg.norm(members - np.median(members, axis=0), axis=1)
        np.testing.assert_allclose(distances[labels == label], expected, rtol=1e-12)
    found = draw("moderate", {"features": features}, keys, 20, labels=labels)
    assert found.tolist() == draw("moderate", distances, keys, 20).tolist()
    monkeypatch.setattr("raygrad.selection.coverage._CELLS", 100)
    np.testing.assert_allclose(feature_distances(features, labels), distances, rtol=1e-12)


def test_features_that_are_not_finite_are_missing_like_scores():
    features, keys = features_of(30)
    features[4, 2] = np.nan
    labels = np.zeros(30)
    for method in ("semdedup", "moderate"):
        with pytest.raises(DataError, match=r"scores must be finite, got 1 that are not: k4"):
            draw(method, {"features": features}, keys, 5, labels=labels)
        found = draw(method, {"features": features}, keys, 29, labels=labels, missing="drop")
        assert 4 not in found.tolist()


def test_wrong_use_is_named():
    features, keys = features_of(30)
    with pytest.raises(ConfigError, match=r"num_clusters must be in \[0, 30\]"):
        copy_similarity(features, np.arange(30), num_clusters=31)
    with pytest.raises(ConfigError, match="a centre for each class needs a label"):
        draw("moderate", {"features": features}, keys, 5)
    with pytest.raises(ConfigError, match="semdedup needs the columns copy_similarity, got none"):
        draw("semdedup", {}, keys, 5)
