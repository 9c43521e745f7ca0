"""Folders, wildcards and compressed tars on S3 are what they are on disk."""

import gzip

from raygrad.data.index import build_index
from raygrad.data.places import TableOptions, resolve
from raygrad.data.reading import read_rows
from raygrad.data.sources import HeldOut
from raygrad.storage import files
from raygrad.storage.urls import expand
from tests.data.making import examples, tar


def put(url, keys):
    files.write_bytes(url, tar(examples(keys)))
    return url


def test_a_folder_of_shards_is_found_by_wildcards_and_as_a_folder_and_read(s3_url):
    train = [put(f"{s3_url}/set/train-{n}.tar", [f"{n}{at}" for at in range(4)]) for n in (0, 1)]
    test = put(f"{s3_url}/set/val/val-0.tar", ["t0", "t1"])
    put(f"{s3_url}/other/train-0.tar", ["x"])
    assert expand(f"{s3_url}/set/train-*.tar") == train
    assert expand(f"{s3_url}/*/*/val-?.tar") == [test]
    found = resolve([f"{s3_url}/set"], [], held_out=HeldOut(), options=TableOptions())
    assert (found.train_urls, found.test_urls) == (tuple(train), (test,))
    index = build_index(found.train_urls, found.test_urls, val_fraction=0.0)
    assert len(list(read_rows(index, index.examples))) == 10


def test_a_compressed_tar_is_unpacked_into_a_run_on_s3(s3_url):
    files.write_bytes(f"{s3_url}/a.tar.gz", gzip.compress(tar(examples(["q", "r"]))))
    out = f"{s3_url}/run/shards"
    index = build_index([f"{s3_url}/a.tar.gz"], [], val_fraction=0.0, unpack_to=out)
    assert index.shards["url"].to_pylist() == [f"{out}/a.tar"]
    assert [e.key for e in read_rows(index, index.examples)] == ["q", "r"]
