"""An exported subset is exactly the subset, byte for byte, as shards that anyone can read."""

import json

import numpy as np
import pyarrow as pa
import pytest
import webdataset

from raygrad.data.export import export_subset
from raygrad.data.index import build_index
from raygrad.data.manifest import read_json
from raygrad.errors import ConfigError
from tests.data.making import example, jpeg, png, put


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    images = {f"f/k{n:03d}": jpeg(n) if n % 2 else png(n) for n in range(120)}
    keys = list(images)
    urls = [
        put(folder, f"s{s}.tar", [m for k in keys[s::3] for m in example(k, s, "JPEG", images[k])])
        for s in range(3)
    ]
    return build_index(urls, [], val_fraction=0.1), images


def subset(keys, weights=None):
    columns = {"key": keys, "shard": ["?"] * len(keys), "weight": weights or [1.0] * len(keys)}
    return pa.table(columns | {"rank": range(len(keys))})


def samples(urls):
    return list(webdataset.WebDataset(list(urls), shardshuffle=False))


CHOSEN = [f"f/k{n:03d}" for n in np.random.default_rng(0).permutation(120)[:30]]


def test_webdataset_reads_exactly_the_subset(data, tmp_path):
    index, images = data
    urls = export_subset(index, subset(CHOSEN), str(tmp_path), shard_bytes=20_000)
    assert len(urls) > 1
    found = {s["__key__"]: (s.get("jpg") or s.get("png"), int(s["cls"])) for s in samples(urls)}
    labels = dict(
        zip(index.examples["key"].to_pylist(), index.examples["label"].to_pylist(), strict=True)
    )
    assert found == {key: (images[key], labels[key]) for key in CHOSEN}
    assert all("png" in s or s["jpg"].startswith(b"\xff\xd8") for s in samples(urls))


def test_an_export_can_be_indexed_and_says_what_it_is(data, tmp_path):
    index, _ = data
    urls = export_subset(
        index, subset(CHOSEN), str(tmp_path), shard_bytes=20_000, origin={"method": "m"}
    )
    again = build_index(urls, [], val_fraction=1e-9, strict=True)
    assert again.examples.num_rows == 30
    facts = read_json(str(tmp_path / "subset.json"))
    assert (facts["num_examples"], facts["weighted"], facts["origin"]) == (
        30,
        False,
        {"method": "m"},
    )


def test_weights_of_a_weighted_draw_go_with_the_examples(data, tmp_path):
    index, _ = data
    weights = [1.0 + n for n in range(30)]
    urls = export_subset(index, subset(CHOSEN, weights), str(tmp_path), shard_bytes=10**6)
    found = {s["__key__"]: json.loads(s["json"]) for s in samples(urls)}
    assert {key: value["weight"] for key, value in found.items()} == dict(
        zip(CHOSEN, weights, strict=True)
    )
    assert all(int(s["cls"]) == json.loads(s["json"])["label"] for s in samples(urls))


def test_the_order_of_the_draw_changes_no_byte_and_a_repeated_export_goes_on(data, tmp_path):
    index, _ = data
    first = export_subset(index, subset(CHOSEN), str(tmp_path / "a"), shard_bytes=20_000)
    (tmp_path / "a/train-000001.tar").unlink()
    export_subset(index, subset(CHOSEN), str(tmp_path / "a"), shard_bytes=20_000)
    export_subset(index, subset(CHOSEN[::-1]), str(tmp_path / "b"), shard_bytes=20_000)
    for url in first:
        name = url.rsplit("/", 1)[-1]
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("keys", [[], ["f/k001", "nowhere"], ["f/k001", "f/k001"]])
def test_a_subset_that_is_not_of_the_index_is_refused(data, tmp_path, keys):
    with pytest.raises(ConfigError, match="keys of the index"):
        export_subset(data[0], subset(keys), str(tmp_path), shard_bytes=10**6)


def test_a_folder_of_another_subset_is_refused(data, tmp_path):
    export_subset(data[0], subset(CHOSEN), str(tmp_path), shard_bytes=10**6)
    with pytest.raises(ConfigError, match="one data set"):
        export_subset(data[0], subset(CHOSEN[1:]), str(tmp_path), shard_bytes=10**6)
