"""The nearest are those of a full comparison; an index says what share of them it finds."""

import logging
import sys

import numpy as np
import pytest

from raygrad.audit import nearest
from raygrad.audit.nearest import exact_neighbours, indexed_neighbours, neighbours


def unit(number, width, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(number, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [4096, 59, 16, 7])
def test_neighbours_are_those_of_a_full_search_in_blocks_of_any_size(block, monkeypatch):
    monkeypatch.setattr(nearest, "_BLOCK", block)
    vectors = unit(60, 4)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    for found in (neighbours(vectors, 8), exact_neighbours(vectors, 8, np.arange(60))):
        np.testing.assert_array_equal(found.at, np.argsort(-cosines, axis=1)[:, :8])
        np.testing.assert_allclose(found.similarity, -np.sort(-cosines, axis=1)[:, :8], atol=1e-6)
        assert found.recall == 1.0


def test_the_nearest_of_some_are_those_that_they_have_among_all(monkeypatch):
    monkeypatch.setattr(nearest, "_BLOCK", 16)
    vectors, some = unit(60, 4), np.array([3, 58, 17])
    found, among_all = exact_neighbours(vectors, 5, some), exact_neighbours(vectors, 5)
    np.testing.assert_array_equal(found.at, among_all.at[some])


def test_an_index_finds_what_exact_search_finds_and_says_what_share():
    pytest.importorskip("usearch")
    vectors = np.concatenate([unit(3000, 32), np.zeros((2, 32), np.float32)])
    exact, found = exact_neighbours(vectors, 8), indexed_neighbours(vectors, 8)
    hit = [len(set(a) & set(b)) / 8 for a, b in zip(exact.at[:-2], found.at[:-2], strict=True)]
    assert np.mean(hit) > 0.97
    assert found.recall == pytest.approx(np.mean(hit), abs=0.03)
    assert not (found.at == np.arange(len(vectors))[:, None])[found.similarity > -2].any()
    cosines = (vectors[:, None] * vectors[found.at]).sum(axis=2)
    there = found.similarity > -2
    np.testing.assert_allclose(found.similarity[there], cosines[there], atol=1e-5)


def test_beyond_what_is_compared_exactly_an_index_is_used_and_its_lack_is_said(caplog, monkeypatch):
    vectors = unit(200, 8)
    exact = exact_neighbours(vectors, 3)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with caplog.at_level(logging.WARNING, "raygrad"):
        found = neighbours(vectors, 3, most_exact=100)
    np.testing.assert_array_equal(found.at, exact.at)
    assert "pip install 'raygrad[nearest]'" in caplog.text


@pytest.mark.parametrize("number", [0, 1, 2])
def test_fewer_vectors_than_are_asked_for_have_fewer_neighbours(number):
    assert neighbours(unit(number, 4), 8).at.shape == (number, max(number - 1, 0))
