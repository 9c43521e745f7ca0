"""Images of other kinds, hidden members, compressed tars and shards that are none."""

import bz2
import gzip
import io
import lzma
import os

import pyarrow as pa
import pytest
from PIL import Image

from raygrad.data.arrays import load_arrays
from raygrad.data.hidden import is_hidden
from raygrad.data.index import build_index, read_index, write_index
from raygrad.data.shard_scan import scan_shard
from raygrad.errors import ConfigError, DataError
from tests.data.making import examples, jpeg, noise, png, put, tar

KEYS = [f"{n:03d}" for n in range(20)]


def encoded(kind, seed=0):
    buffer = io.BytesIO()
    Image.fromarray(noise(seed)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("webp", "WEBP"), ("WebP", "WEBP"), ("gif", "GIF"), ("bmp", "BMP"), ("tif", "TIFF"),
        ("tiff", "TIFF"), ("jfif", "JPEG"), ("jpe", "JPEG"),
    ],
)  # fmt: skip
def test_other_images_are_used_by_their_endings(tmp_path, ending, kind):
    members = [m for k in KEYS for m in ((f"{k}.{ending}", encoded(kind)), (f"{k}.cls", b"0"))]
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    arrays = load_arrays(index, "train", channels=3)
    assert arrays.keys == KEYS
    assert arrays.rejects.num_rows == 0


def test_other_images_beside_a_jpeg_or_png_are_passed_over_as_they_were(tmp_path):
    members = [("a.gif", b"x"), ("a.png", png()), ("a.cls", b"0"), ("a.tif", b"x")]
    found = scan_shard(put(tmp_path, "a.tar", members))
    assert found.examples["size"].to_pylist() == [len(png())]
    assert found.rejects == []


def test_two_other_images_of_a_key_are_a_reject(tmp_path):
    members = [("a.gif", b"x"), ("a.tif", b"x"), ("a.cls", b"0"), *examples("b")]
    found = scan_shard(put(tmp_path, "a.tar", members))
    assert found.rejects == [("a", "two images, .gif and .tif")]
    assert found.examples["key"].to_pylist() == ["b"]


def test_the_image_may_be_a_member_by_name(tmp_path):
    members = [
        m
        for k in KEYS
        for m in (
            (f"{k}.jpg", jpeg(9)),
            (f"{k}.left.png", png(int(k))),
            (f"{k}.depth.bin", png(3)),
            (f"{k}.cls", b"0"),
        )
    ]
    url = put(tmp_path, "a.tar", members)
    for name, value in (("left.png", 7), ("LEFT.PNG", 7), ("depth.bin", 3)):
        index = build_index([url], [], val_fraction=0.0, image=name)
        assert load_arrays(index, "train", channels=3).images[7, 0, 0, 0] == value
    with pytest.raises(DataError, match="no image"):
        build_index([url], [], val_fraction=0.0, image="right.png")


HIDDEN = (
    "._000.png", ".ipynb_checkpoints/000-checkpoint.png", "a/.ipynb_checkpoints/x.png",
    "__MACOSX/._x.png", "__MACOSX/x.png", "a/@eaDir/x.png/SYNOPHOTO_THUMB_XL.png", "Thumbs.db",
    "a/.DS_Store", "desktop.ini", "lost+found/x.png", "$RECYCLE.BIN/x.png",
)  # fmt: skip


def test_hidden_members_are_no_examples_and_are_counted(tmp_path):
    assert all(map(is_hidden, HIDDEN))
    members = [(name, png()) for name in HIDDEN] + examples(KEYS)
    index = build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0)
    assert index.examples["key"].to_pylist() == KEYS
    assert index.rejects.num_rows == 0
    assert index.notes == (f"{len(HIDDEN)} hidden files left out, such as '._000.png'",)


@pytest.mark.parametrize(
    "name", ["./a.png", "../a.png", "a..b.png", "a/b.c.png", "my__MACOSX/a.png", "Thumbs.db.png"]
)
def test_what_only_looks_hidden_is_not(name):
    assert not is_hidden(name)


PACKERS = {
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": lambda data: bytes(pa.Codec("zstd").compress(data)),
    "tar": gzip.compress,  # by its first bytes, whatever it is called
}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_tar_is_unpacked_once_and_read(tmp_path, ending):
    members = [m for k in KEYS for m in ((f"{k}.png", png(int(k))), (f"{k}.cls", b"0"))]
    url = put(tmp_path, f"x/a.{ending}", PACKERS[ending](tar(members)))
    data = tmp_path / "run/data"
    index = build_index([url], [], val_fraction=0.0, unpack_to=str(data / "shards"))
    write_index(str(data), index)
    moved = data.parent.rename(tmp_path / "moved")
    back = read_index(str(moved / "data"))
    assert back.shards["source"].to_pylist() == [url]
    arrays = load_arrays(back, "train", channels=3)
    assert arrays.keys == KEYS
    assert arrays.images[:, 0, 0, 0].tolist() == list(range(20))


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_tar_that_is_cut_is_damaged_and_keeps_what_is_whole(tmp_path, ending):
    members = [m for k in KEYS for m in ((f"{k}.jpg", jpeg(int(k), (90, 70))), (f"{k}.cls", b"0"))]
    whole = PACKERS[ending](tar(members))
    url = put(tmp_path, f"a.{ending}", whole[: len(whole) // 2])
    good = put(tmp_path, "good.tar", examples([f"g{key}" for key in KEYS]))
    with pytest.raises(DataError, match="may be rejected"):
        build_index([good, url], [], val_fraction=0.0, unpack_to=str(tmp_path / "out"))
    index = build_index(
        [good, url], [], val_fraction=0.0, unpack_to=str(tmp_path / "out"), max_reject_share=0.9
    )
    assert index.rejects.num_rows == 1
    assert set(index.rows("train")["key"].to_pylist()) >= {f"g{key}" for key in KEYS}


def test_what_comes_before_the_cut_of_a_compressed_tar_is_kept(tmp_path):
    noise = [(f"{at:03d}.png", os.urandom(10_000)) for at in range(40)]
    whole = gzip.compress(tar([m for pair in noise for m in (pair, (pair[0][:3] + ".cls", b"0"))]))
    url = put(tmp_path, "a.tar.gz", whole[: len(whole) // 2])
    index = build_index(
        [url], [], val_fraction=0.0, unpack_to=str(tmp_path / "out"), max_reject_share=0.9
    )
    assert 10 <= index.examples.num_rows <= 20


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
        (b"<!doctype html><html>Access to this data set is restricted</html>", "HTML page"),
        (b"PK\3\4" + bytes(600), "ZIP archive"),
        (b"PAR1" + bytes(600), "Parquet"),
        (jpeg(), "JPEG image"),
    ],
)
def test_what_is_there_in_place_of_a_tar_is_called_by_its_name(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        build_index([put(tmp_path, "a.tar", content)], [], val_fraction=0.0)


def test_a_shard_that_is_not_there_is_one_line_with_its_name(tmp_path):
    good = put(tmp_path, "a-0.tar", examples(KEYS))
    (tmp_path / "a-2.tar").symlink_to(tmp_path / "nothing")
    for name in ("a-1.tar", "a-2.tar"):
        with pytest.raises(ConfigError, match=f"got nothing at .*{name}"):
            build_index([good, str(tmp_path / name)], [], val_fraction=0.0)
    with pytest.raises(ConfigError, match="files that can be read"):
        build_index([good, str(tmp_path)], [], val_fraction=0.0)
