"""A few examples of a data set, to try the whole way before the whole data set goes it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.data.example_sets import ExampleSet
from raygrad.data.index import Index
from raygrad.data.sources import Source
from raygrad.selection.keyed_random import key_hashes

TEST_SHARE = 0.25
"""Test examples that are kept, relative to training examples."""


def limited_source(source: Source, max_examples: int) -> Source:
    """Returns a source with at most so many training examples, a quarter as many test examples.

    They are those whose keys have the smallest hashes.
    """
    return replace(
        source,
        train=_limited(source.train, max_examples),
        test=_limited(source.test, math.ceil(TEST_SHARE * max_examples)),
    )


def _limited(examples: ExampleSet, most: int) -> ExampleSet:
    order = np.argsort(key_hashes(examples.keys()), kind="stable")
    return examples.take(np.sort(order[:most]))


def index_of_first_shards(
    build: Callable[[Sequence[str], Sequence[str]], Index],
    train_urls: Sequence[str],
    test_urls: Sequence[str],
    max_examples: int,
) -> Index:
    """Indexes the first shards, as many as the examples take, and limits the index to them.

    Args:
        build: Indexes training and test shards.
        train_urls: All training shards.
        test_urls: All test shards.
        max_examples: See `limited_index`.
    """
    num_shards = 1
    while True:
        index = build(train_urls[:num_shards], test_urls[:num_shards])
        found = index.examples.num_rows - sum(index.counts("test").values())
        if found >= max_examples or num_shards >= len(train_urls):
            return limited_index(index, max_examples)
        num_shards *= 2


def limited_index(index: Index, max_examples: int) -> Index:
    """Returns an index with at most so many training examples, a quarter as many test examples.

    They are those whose keys have the smallest hashes; validation counts as training here.
    Classes without a training example are left out and the others numbered anew, so that what is
    left is a data set of its own, however many classes there were.
    """
    table = index.examples
    is_test = pc.equal(table["split"], "test")
    train = _smallest(table.filter(pc.invert(is_test)), max_examples)
    kept = pc.unique(train.filter(pc.equal(train["split"], "train"))["label"]).sort()
    train = train.filter(pc.is_in(train["label"], kept))
    test = table.filter(pc.and_(is_test, pc.is_in(table["label"], kept)))
    test = _smallest(test, math.ceil(TEST_SHARE * max_examples))
    rows = pa.concat_tables([train, test]).combine_chunks()
    at = rows.schema.get_field_index("label")
    numbers = pc.index_in(rows["label"], kept).cast(pa.int64())
    classes = tuple(index.classes[label] for label in kept.to_pylist())
    return replace(
        index, examples=rows.set_column(at, table.schema.field(at), numbers), classes=classes
    )


def _smallest(table: pa.Table, most: int) -> pa.Table:
    """Returns the rows with the smallest key hashes, in the table's order."""
    order = np.argsort(table["key_hash"].to_numpy(), kind="stable")
    return table.take(pa.array(np.sort(order[:most])))
