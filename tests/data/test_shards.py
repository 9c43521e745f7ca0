"""Shards are deterministic, whole or not there, and hold exactly the source."""

import hashlib
import io
import os
import tarfile
import tracemalloc

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raygrad.data import shards as shards_module
from raygrad.data.example_sets import ArrayExamples, Example, encode_png
from raygrad.data.shards import write_shards, write_tar
from raygrad.data.sources import SOURCES, HeldOut, Source
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.manifest import read_json


def source(num=50, seed=0):
    rng = np.random.default_rng(seed)
    examples = ArrayExamples(
        "x", rng.integers(0, 256, (num, 8, 8), np.uint8), np.arange(num) % 3, np.arange(num)
    )
    return Source(
        examples.take(np.arange(num - 10)),
        examples.take(np.arange(num - 10, num)),
        ("a", "b", "c"),
        1,
    )


def write(out, **options):
    return write_shards(source(), "x", str(out), **({"shard_bytes": 20_000, "seed": 0} | options))


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*")}


def tar_of(examples):
    buffer = io.BytesIO()
    write_tar(buffer, examples)
    return buffer.getvalue()


@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(exclude_characters="./\0", codec="utf-8"), min_size=1, max_size=200
            ),
            st.binary(max_size=1500),
        ),
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_tarfile_reads_back_what_was_written(pairs):
    content = tar_of([Example(key, data, "jpg", at) for at, (key, data) in enumerate(pairs)])
    assert len(content) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        found = [(m.name, tar.extractfile(m).read()) for m in tar]
    expected = []
    for at, (key, data) in enumerate(pairs):
        expected += [(f"{key}.jpg", data), (f"{key}.cls", str(at).encode())]
    assert found == expected


def test_headers_hold_no_time_and_no_owner():
    with tarfile.open(fileobj=io.BytesIO(tar_of([Example("k", b"x", "png", 0)]))) as tar:
        member = tar.next()
    assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_webdataset_reads_every_example_with_its_label(tmp_path):
    written = write(tmp_path)
    found = {
        s["__key__"]: int(s["cls"])
        for s in webdataset.WebDataset(list(written.train_urls), shardshuffle=False)
    }
    assert found == {f"x-{n:06d}": n % 3 for n in range(40)}


def test_the_same_source_and_seed_give_the_same_bytes_and_another_seed_another_order(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_shards_are_about_as_large_as_asked_and_examples_are_shuffled_over_them(tmp_path):
    written = write(tmp_path)
    assert len(written.train_urls) == 4
    with tarfile.open(written.train_urls[0]) as tar:
        first = [name for name in tar.getnames() if name.endswith(".cls")]
    assert len(first) == 10
    assert first != sorted(first)


def test_dataset_json_says_what_the_shards_are(tmp_path):
    write(tmp_path)
    assert read_json(str(tmp_path / "dataset.json")) == {
        "source": "x",
        "classes": ["a", "b", "c"],
        "num_classes": 3,
        "channels": 1,
        "counts": {"train": 40, "test": 10},
    }


def test_a_repeated_prepare_keeps_whole_tars_and_mends_the_others(tmp_path):
    written = write(tmp_path)
    before = digests(tmp_path)
    times = {url: (tmp_path / url).stat().st_mtime_ns for url in written.train_urls}
    cut, gone, garbage = written.train_urls[1:4]
    with open(cut, "r+b") as stream:
        stream.truncate(5 * 512)
    with open(written.test_urls[0], "r+b") as stream:  # every example, but not the tar's end
        stream.truncate(-(-len(stream.read().rstrip(b"\0")) // 512) * 512)
    (tmp_path / gone).unlink()
    (tmp_path / garbage).write_bytes(b"x" * 5000)
    write(tmp_path)
    assert digests(tmp_path) == before
    assert (tmp_path / written.train_urls[0]).stat().st_mtime_ns == times[written.train_urls[0]]


def test_images_that_were_corrected_in_place_are_written_again(tmp_path):
    """As many bytes as before, under the same keys."""
    contents = []
    for value in (10, 250):
        for name in ("cat", "dog"):
            for at in range(2):
                path = tmp_path / "photos" / "train" / name / f"{at}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (5, 4), (value, at, 0)).save(path)
        source = SOURCES["image-folder"](str(tmp_path / "photos"), held_out=HeldOut(0.0))
        out = str(tmp_path / "out")
        (url,) = write_shards(source, "photos", out, shard_bytes=2**20, seed=0).train_urls
        contents.append(files.read_bytes(url))
        changed_ns = os.stat(url).st_mtime_ns
        write_shards(source, "photos", out, shard_bytes=2**20, seed=0)
        assert os.stat(url).st_mtime_ns == changed_ns, "what is as it was is kept"
    assert contents[0] != contents[1]
    assert len(contents[0]) == len(contents[1])


def test_a_write_that_dies_leaves_no_tar_and_is_gone_on_with(tmp_path, monkeypatch):
    calls = []

    def dying(stream, examples):
        calls.append(1)
        if len(calls) == 3:
            stream.write(b"half a tar")
            raise KeyboardInterrupt
        return write_tar(stream, examples)

    monkeypatch.setattr(shards_module, "write_tar", dying)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "_plan.json",
        "train-000000.tar",
        "train-000001.tar",
    ]
    write(tmp_path)
    assert len(calls) == 6  # three died or done, two of train and one of test to go
    write(other := tmp_path.with_name("other"))
    assert digests(tmp_path) == digests(other)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"shard_bytes": 30_000}])
def test_a_folder_of_another_prepare_is_refused(tmp_path, changed):
    write(tmp_path)
    with pytest.raises(ConfigError, match="one data set"):
        write(tmp_path, **changed)


def test_a_folder_of_other_pixels_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError, match="one data set"):
        write_shards(source(seed=1), "x", str(tmp_path), shard_bytes=20_000, seed=0)


def test_writing_holds_no_more_than_a_shard(tmp_path):
    """The whole data set would be 16 MB; the peak stays far below it."""

    class Lazy:
        def __init__(self, numbers):
            self.numbers = numbers

        def __len__(self):
            return len(self.numbers)

        def __iter__(self):
            return (Example(f"k{n}", bytes(80_000), "png", 0) for n in self.numbers.tolist())

        def keys(self):
            return [f"k{n}" for n in self.numbers.tolist()]

        def image_bytes(self):
            return 80_000 * len(self)

        def fingerprint(self):
            return ""

        def take(self, positions):
            return Lazy(self.numbers[positions])

    tracemalloc.start()
    lazy = Source(Lazy(np.arange(200)), Lazy(np.arange(200, 201)), ("a",), 1)
    written = write_shards(lazy, "x", str(tmp_path), shard_bytes=1_600_000, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(written.train_urls) == 10
    assert peak < 4_000_000


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (28, 28), (5, 7, 3), (32, 32, 3)])
def test_png_holds_the_pixels(shape):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = Image.open(io.BytesIO(encode_png(pixels)))
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert image.mode == ("RGB" if len(shape) == 3 else "L")
