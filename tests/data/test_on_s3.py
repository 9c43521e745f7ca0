"""A real S3 server gives the same bytes as disk, also when it is killed in the middle."""

import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from raygrad.data import s3, storage
from raygrad.data.arrays import load_arrays
from raygrad.data.example_sets import ArrayExamples
from raygrad.data.export import export_subset
from raygrad.data.index import build_index, read_index, write_index
from raygrad.data.range_reads import read_rows
from raygrad.data.shards import write_shards
from raygrad.data.sources import Source
from raygrad.data.streaming import epoch_batches
from raygrad.data.urls import expand
from raygrad.errors import IncompleteError


def prepare(out, num=400, side=32):
    pixels = np.random.default_rng(0).integers(0, 256, (num, side, side, 3), np.uint8)
    everything = ArrayExamples("x", pixels, np.arange(num) % 4, np.arange(num))
    at = np.arange(num)
    source = Source(everything.take(at[:-40]), everything.take(at[-40:]), tuple("abcd"), 3)
    return write_shards(source, "x", out, shard_bytes=300_000, seed=0)


def index_of(out):
    train, test = (expand(f"{out}/{split}-*.tar") for split in ("train", "test"))
    return build_index(train, test, val_fraction=0.1, strict=True)


def contents(folder):
    return {url.rsplit("/", 1)[-1]: storage.read_bytes(url) for url in storage.list_files(folder)}


@pytest.fixture
def both(bucket, tmp_path):
    """The same data set prepared on disk and on S3."""
    places = str(tmp_path / "shards"), f"{bucket}/shards"
    for place in places:
        prepare(place)
    return places


def test_prepare_writes_the_same_bytes_and_goes_on_where_it_stopped(both):
    disk, s3_url = both
    assert contents(disk) == contents(s3_url)
    assert len(contents(disk)) > 5
    storage.write_bytes(f"{s3_url}/train-000001.tar", b"cut")
    prepare(s3_url)
    assert contents(disk) == contents(s3_url)


def test_index_stream_and_range_reads_are_the_same(both, bucket):
    indices = [index_of(place) for place in both]
    assert indices[0].examples.equals(indices[1].examples)
    columns = ["name", "num_examples", "num_bytes", "digest"]
    assert indices[0].shards.select(columns).equals(indices[1].shards.select(columns))
    write_index(f"{bucket}/data", indices[1])
    indices[1] = read_index(f"{bucket}/data")
    streams = [list(epoch_batches(index, "train", batch_size=16, seed=1)) for index in indices]
    assert streams[0] == streams[1]
    chosen = pa.array(np.random.default_rng(2).permutation(400)[:9])
    reads = [list(read_rows(index, index.examples.take(chosen))) for index in indices]
    assert reads[0] == reads[1]
    arrays = [load_arrays(index, "test", channels=3) for index in indices]
    np.testing.assert_array_equal(arrays[0].images, arrays[1].images)


def test_export_is_the_same_from_and_to_either(both, bucket, tmp_path):
    keys = index_of(both[0]).examples["key"].to_pylist()[::7]
    subset = pa.table({"key": keys})
    outs = [str(tmp_path / "a"), f"{bucket}/b", f"{bucket}/c"]
    for out, place in zip(outs, [both[0], both[1], both[0]], strict=True):
        export_subset(index_of(place), subset, out, shard_bytes=100_000)
    a, b, c = map(contents, outs)
    assert a == b == c
    assert len(a) > 3


def _stream(index, seaweed, after, do):
    """Streams an epoch and calls `do` after some batches; returns the keys and bytes."""
    found = []
    for number, batch in enumerate(epoch_batches(index, "train", batch_size=8)):
        if number == after:
            do()
        found += [(row["key"], data) for row, data in batch]
    return found


def test_a_server_killed_and_started_again_in_a_read_costs_no_example(both, seaweed, monkeypatch):
    monkeypatch.setattr("raygrad.data.streaming.WINDOW", 32)
    index = index_of(both[1])
    expected = _stream(index_of(both[0]), seaweed, None, None)
    restarts = []

    def restart():
        seaweed.kill()
        restarts.append(threading.Thread(target=lambda: (time.sleep(1), seaweed.start())))
        restarts[0].start()

    found = _stream(index, seaweed, 10, restart)
    restarts[0].join()
    assert found == expected
    assert len(found) == len(index.rows("train"))


@pytest.mark.slow
def test_a_server_that_stays_dead_ends_the_read_with_a_clear_error(both, seaweed, monkeypatch):
    monkeypatch.setattr("raygrad.data.streaming.WINDOW", 32)
    monkeypatch.setattr(s3, "PATIENCE_S", 1.0)
    index = index_of(both[1])
    try:
        with pytest.raises(IncompleteError, match="must answer within"):
            _stream(index, seaweed, 10, seaweed.kill)
    finally:
        seaweed.start()


@pytest.mark.slow
def test_a_server_killed_and_started_again_in_a_prepare_gets_every_byte(
    bucket, tmp_path, seaweed, monkeypatch
):
    prepare(str(tmp_path / "disk"))
    write_tar, calls, restarts = storage.open_output, [], []

    def open_output(url):
        calls.append(url)
        if len(calls) == 3:
            seaweed.kill()
            restarts.append(threading.Thread(target=seaweed.start))
            restarts[0].start()
        return write_tar(url)

    monkeypatch.setattr(storage, "open_output", open_output)
    prepare(f"{bucket}/shards")
    restarts[0].join()
    assert contents(f"{bucket}/shards") == contents(str(tmp_path / "disk"))


def test_globs_and_braces_name_objects(bucket):
    for name in ("a/x-0.tar", "a/x-1.tar", "b/x-0.tar", "b/y.txt"):
        storage.write_bytes(f"{bucket}/g/{name}", b"")
    assert expand(f"{bucket}/g/*/x-0.tar") == [f"{bucket}/g/a/x-0.tar", f"{bucket}/g/b/x-0.tar"]
    assert expand(f"{bucket}/g/{{b,a}}/x-*.tar") == [
        f"{bucket}/g/{name}" for name in ("b/x-0.tar", "a/x-0.tar", "a/x-1.tar")
    ]
