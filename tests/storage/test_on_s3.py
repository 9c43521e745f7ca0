"""The whole floor on S3 and on disk: prepare, index, stream, range reads and export agree."""

import contextlib
import os
import threading

import numpy as np
import pytest
import webdataset

from raygrad.data.arrays import load_arrays
from raygrad.data.export import export_subset
from raygrad.data.index import build_index, read_index, write_index
from raygrad.data.reading import read_rows
from raygrad.data.shards import write_shards
from raygrad.data.sources import SOURCES
from raygrad.data.streaming import StreamedImages
from raygrad.storage import files
from raygrad.storage.urls import expand
from raygrad.storage.webdatasets import register


@pytest.fixture(scope="module")
def source():
    return SOURCES["digits"](None)


@pytest.fixture
def both(source, tmp_path, s3_url):
    """The digits, written to disk and to S3."""
    return [
        write_shards(source, "digits", out, shard_bytes=500_000, seed=0)
        for out in (str(tmp_path / "shards"), f"{s3_url}/shards")
    ]


def index_of(written, **options):
    return build_index(written.train_urls, written.test_urls, val_fraction=0.1, **options)


def test_prepare_writes_the_same_bytes(both):
    on_disk, on_s3 = both
    assert len(on_s3.train_urls) > 3
    for ours, theirs in zip(
        (*on_disk.train_urls, *on_disk.test_urls),
        (*on_s3.train_urls, *on_s3.test_urls),
        strict=True,
    ):
        assert os.path.basename(ours) == os.path.basename(theirs)
        assert files.read_bytes(ours) == files.read_bytes(theirs)


def test_the_index_is_the_same_and_comes_back(both, s3_url):
    on_disk, on_s3 = map(index_of, both)
    assert on_disk.examples.equals(on_s3.examples)
    assert on_disk.digest == on_s3.digest
    write_index(s3_url, on_s3)
    back = read_index(s3_url)
    assert back.examples.equals(on_s3.examples)
    assert back.shards.equals(on_s3.shards)


def test_globs_and_braces_find_the_same_shards(both):
    on_s3 = both[1]
    folder = on_s3.train_urls[0].rsplit("/", 1)[0]
    last = len(on_s3.train_urls) - 1
    assert expand(f"{folder}/train-*.tar") == list(on_s3.train_urls)
    assert expand(f"{folder}/train-{{000000..{last:06d}}}.tar") == list(on_s3.train_urls)


def streamed(index, channels):
    """The training images as they are streamed, all of them usable."""
    return StreamedImages(index, index.rows("train"), (channels, 8, 8), None)


def test_streams_ranges_arrays_and_exports_are_the_same(both, tmp_path, s3_url):
    on_disk, on_s3 = map(index_of, both)
    few = on_disk.examples.take(list(range(0, on_disk.examples.num_rows, 97)))
    assert list(read_rows(on_disk, few)) == list(read_rows(on_s3, few))
    assert list(read_rows(on_disk, on_disk.examples)) == list(read_rows(on_s3, on_s3.examples))
    arrays = [load_arrays(index, "val", channels=1) for index in (on_disk, on_s3)]
    assert (arrays[0].images == arrays[1].images).all()
    at = np.array([40, 3, 700, 3])
    streams = [streamed(index, channels=1).read(at) for index in (on_disk, on_s3)]
    assert (streams[0] == streams[1]).all()
    assert (streams[0] == load_arrays(on_disk, "train", channels=1).images[at]).all()
    keys = few["key"].to_pylist()
    exports = [
        [files.read_bytes(url) for url in export_subset(index, keys, out, shard_bytes=8_000)]
        for index, out in ((on_disk, str(tmp_path / "subset")), (on_s3, f"{s3_url}/subset"))
    ]
    assert exports[0] == exports[1]


def test_a_plain_webdataset_loop_reads_both(both):
    """With `register`, webdataset itself needs no external command for S3."""
    register()
    on_disk, on_s3 = (
        [
            {name: value for name, value in sample.items() if name in ("__key__", "png", "cls")}
            for sample in webdataset.WebDataset(list(written.train_urls), shardshuffle=False)
        ]
        for written in both
    )
    assert len(on_disk) == index_of(both[0]).rows("train").num_rows + len(
        index_of(both[0]).rows("val")
    )
    assert on_disk == on_s3


@contextlib.contextmanager
def restarting(server):
    """A map that kills the server after the first item and has it started again meanwhile."""
    restart = threading.Thread(target=server.start)

    def kills_after_the_first(call, items):
        for item in items:
            yield call(item)
            if restart.ident is None:
                server.kill()
                restart.start()

    yield kills_after_the_first
    restart.join()


@pytest.mark.slow
def test_prepare_and_index_outlive_a_restart_of_the_server(source, both, s3_env, s3_url):
    """The server dies after the first tar; the call waits, and the bytes are the same."""
    out = f"{s3_url}/again"
    with restarting(s3_env) as kills_after_the_first:
        written = write_shards(
            source, "digits", out, shard_bytes=500_000, seed=0, map_fn=kills_after_the_first
        )
    assert [files.read_bytes(url) for url in written.train_urls] == [
        files.read_bytes(url) for url in both[0].train_urls
    ]
    with restarting(s3_env) as kills_after_the_first:
        again = index_of(written, map_fn=kills_after_the_first)
    assert again.examples.equals(index_of(both[0]).examples)
