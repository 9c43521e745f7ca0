"""Inner products of last-layer gradients, and the ends of what comes in parts."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from raygrad.selection.influence import Extremes, Factors, inner_products


def factors(number, seed):
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(number, 3)), rng.normal(size=(number, 5)).astype(np.float16))


def test_inner_products_are_those_of_the_gradients_written_out():
    of, queries = factors(7, 0), factors(4, 1)
    gradients = [
        np.einsum("nc,nd->ncd", one.errors, one.features).reshape(len(one.errors), -1)
        for one in (of, queries)
    ]
    found = inner_products(of, queries)
    np.testing.assert_allclose(found, gradients[0] @ gradients[1].T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cuts", [(0, 40), (0, 3, 3, 17, 40)])
@pytest.mark.parametrize("number", [1, 4, 19, 20, 50])
def test_the_ends_are_those_of_a_full_sort_whatever_the_parts(number, cuts):
    rng = np.random.default_rng(0)
    values = rng.integers(-9, 9, (40, 2)).astype(np.float64)  # with ties
    keys = np.array([f"k{at:02d}" for at in rng.permutation(40)])
    extremes = Extremes(2, number)
    for start, end in itertools.pairwise(cuts):
        extremes.add(pa.table({"key": keys[start:end]}), values[start:end])
    for query in range(2):
        order = np.lexsort((keys, -values[:, query]))
        ranks = np.arange(1, 41)
        ends = np.r_[0:number, 40 - number : 40] if 2 * number < 40 else np.arange(40)
        table = extremes.table(query)
        assert table["key"].to_pylist() == keys[order][ends].tolist()
        assert table["rank"].to_pylist() == ranks[ends].tolist()
        assert table["influence"].to_pylist() == values[order, query][ends].tolist()
