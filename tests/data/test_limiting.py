"""A few examples of a data set are a data set of their own."""

import numpy as np
import pyarrow as pa
import pytest

from raygrad.data.example_sets import ArrayExamples
from raygrad.data.index import SHARD_SCHEMA, Index
from raygrad.data.index_rows import INDEX_SCHEMA
from raygrad.data.limiting import index_of_first_shards, limited_index, limited_source
from raygrad.data.sources import Source
from raygrad.selection.keyed_random import key_hashes


def make_index(shards, num_classes, per_shard=50, num_test=40):
    rng = np.random.default_rng(0)
    rows = []
    for shard in shards:
        for number in range(per_shard):
            key = f"{shard}/{number}"
            split = "val" if number % 10 == 0 else "train"
            rows.append((key, shard, int(rng.integers(num_classes)), split))
    rows += [(f"t/{n}", "t", int(rng.integers(num_classes)), "test") for n in range(num_test)]
    keys = [row[0] for row in rows]
    columns = {
        "key": keys,
        "key_hash": key_hashes(keys),
        "shard": [row[1] for row in rows],
        "offset": [0] * len(rows),
        "size": [1] * len(rows),
        "label": [row[2] for row in rows],
        "split": [row[3] for row in rows],
    }
    classes = tuple(f"class {n}" for n in range(num_classes))
    empty = pa.table({name: [] for name in SHARD_SCHEMA.names}, SHARD_SCHEMA)
    rejects = pa.table({"shard": [], "key": [], "reason": []})
    return Index(pa.table(columns, INDEX_SCHEMA), empty, rejects, classes)


@pytest.mark.parametrize("num_classes", [3, 400])
def test_what_is_left_has_a_training_example_of_every_class_and_names_them_rightly(num_classes):
    whole = make_index(["a", "b"], num_classes)
    names = {r["key"]: whole.classes[r["label"]] for r in whole.examples.to_pylist()}
    few = limited_index(whole, 30)
    rows = few.examples.to_pylist()
    assert few.examples.schema.equals(INDEX_SCHEMA)
    assert {few.classes[row["label"]] == names[row["key"]] for row in rows} == {True}
    train = [row["label"] for row in rows if row["split"] == "train"]
    assert set(train) == set(range(len(few.classes)))
    assert sum(row["split"] != "test" for row in rows) <= 30
    assert sum(row["split"] == "test" for row in rows) <= 8


def test_which_examples_are_kept_depends_on_their_keys_alone():
    whole = make_index(["a", "b"], 3)
    order = np.random.default_rng(1).permutation(whole.examples.num_rows)
    mixed = Index(whole.examples.take(pa.array(order)), whole.shards, whole.rejects, whole.classes)
    kept = [limited_index(index, 30).examples["key"].to_pylist() for index in (whole, mixed)]
    assert sorted(kept[0]) == sorted(kept[1])
    assert kept[0] != kept[1], "the order stays the index's"


def test_no_more_shards_are_read_than_the_examples_take():
    read = []

    def build(train_urls, test_urls):
        read.append((len(train_urls), len(test_urls)))
        return make_index(train_urls, 3)

    urls = [f"s{number}" for number in range(100)]
    index = index_of_first_shards(build, urls, ["t"], 130)
    assert read == [(1, 1), (2, 1), (4, 1)]
    assert sum(index.counts("train").values()) + sum(index.counts("val").values()) == 130


def test_a_limited_source_is_the_same_whatever_is_limited_further():
    def examples(prefix, count):
        pixels = np.zeros((count, 4, 4), np.uint8)
        return ArrayExamples(prefix, pixels, np.arange(count) % 2, np.arange(count))

    source = Source(examples("a", 100), examples("b", 100), ("0", "1"), 1)
    few, fewer = limited_source(source, 20), limited_source(source, 12)
    assert (len(few.train), len(few.test), len(fewer.test)) == (20, 5, 3)
    assert set(fewer.train.keys()) <= set(few.train.keys())
