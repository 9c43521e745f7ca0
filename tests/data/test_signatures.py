"""What a file is, by its first bytes: real encoders' output and what downloads leave behind."""

import bz2
import collections
import gzip
import io
import lzma
import pickle
import re
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raygrad.data.decode import decode_image
from raygrad.data.signatures import HEAD_BYTES, kind_of
from raygrad.errors import DataError
from tests.data.making import noise, tar

RGB = Image.fromarray(noise(1))


def encoded(kind, **options):
    buffer = io.BytesIO()
    RGB.save(buffer, kind, **options)
    return buffer.getvalue()


def written(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(buffer):
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"b")


TABLE = pa.table({"a": [1]})

KINDS = {
    "a JPEG image": [encoded("JPEG"), encoded("JPEG", progressive=True)],
    "a PNG image": [encoded("PNG")],
    "a GIF image": [encoded("GIF")],
    "a WebP image": [encoded("WEBP"), encoded("WEBP", lossless=True)],
    "a BMP image": [encoded("BMP")],
    "a TIFF image": [encoded("TIFF"), encoded("TIFF", compression="tiff_lzw")],
    "a PNM image": [encoded("PPM"), b"P2\n# grey\n2 2\n255\n0 1 2 3\n"],
    "a JPEG 2000 image": [encoded("JPEG2000"), encoded("JPEG2000", no_jp2=True)],
    "an AVIF image": [b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf"],
    "a HEIC image": [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"],
    "an icon": [encoded("ICO")],
    "an SVG drawing": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='1'/>",
    ],
    "gzip": [gzip.compress(b"a")],
    "bzip2": [bz2.compress(b"a")],
    "xz": [lzma.compress(b"a")],
    "zstd": [bytes(pa.Codec("zstd").compress(b"a" * 99))],
    "lz4": [bytes(pa.Codec("lz4").compress(b"a" * 99))],
    "a ZIP archive": [written(zipped)],
    "a tar": [tar([("a.jpg", b"x")]), tar([("a.jpg", b"x")], format=tarfile.PAX_FORMAT)],
    "a Parquet file": [written(lambda out: pq.write_table(TABLE, out))],
    "an Arrow file": [written(lambda out: feather.write_feather(TABLE, out))],
    "a NumPy array": [written(lambda out: np.save(out, np.zeros(3)))],
    "a Python pickle": [pickle.dumps({"a": 1}), pickle.dumps([1], protocol=2)],
    "a git-lfs pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"],
    "a git-annex pointer": [b"/annex/objects/MD5E-s1--0.jpg\n"],
    "an HTML page": [
        b"<!doctype html><html>Access is restricted</html>",
        b"\n\n  <HTML><HEAD>",
        b"\xef\xbb\xbf<!DOCTYPE html>",
        b"<!-- saved -->\n<html lang='en'>",
    ],
    "an XML error message": [
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
    ],
    "an XML file": [b"<?xml version='1.0'?><annotation/>"],
    "a JSON file": [b'{"error": "not found"}', b"[1, 2]"],
    "a script": [b"#!/bin/sh\nexit 1\n"],
    "a text file": [b"404: Not Found", "é".encode() * HEAD_BYTES, b"a" + "é".encode() * 300],
    "an AppleDouble file (what macOS keeps beside a file, not the file)": [
        b"\0\x05\x16\x07\0\x02\0\0Mac OS X"
    ],
    "zeros": [bytes(1), bytes(4096)],
    "an empty file": [b""],
    "data of no known format": [
        zlib.compress(b"a"),
        bytes(range(128, 256)),
        b"\x01",
        b"abc\xff\xfe",
    ],
}
CASES = [(name, data) for name, files in KINDS.items() for data in files]


@pytest.mark.parametrize(("name", "data"), CASES, ids=[f"{n}-{len(d)}" for n, d in CASES])
def test_a_file_is_called_what_it_is(name, data):
    assert kind_of(data) == name
    assert kind_of(data[:HEAD_BYTES]) == name


def test_any_bytes_have_a_kind_of_one_line():
    rng = np.random.default_rng(0)
    for size in [1, 2, 3, 5, 20, 511, 512, 513] * 100:
        kind = kind_of(rng.bytes(size))
        assert kind
        assert "\n" not in kind


def test_reasons_of_images_that_do_not_decode_are_few_and_hold_no_address_or_count():
    """200 broken files of five kinds give few reasons, each naming what the file is."""
    rng = np.random.default_rng(0)
    whole = {"JPEG": encoded("JPEG"), "PNG": encoded("PNG")}
    reasons = collections.Counter()
    for at in range(40):
        cut = {kind: 30 + (len(data) - 50) * at // 40 for kind, data in whole.items()}
        files = {f"a {kind} image": data[: cut[kind]] for kind, data in whole.items()}
        files["a BMP image"] = encoded("BMP")[: 40 + at]
        files["an HTML page"] = b"<html>" + b"%d" % at * at
        files["data of no known format"] = b"\x01\xff" + rng.bytes(at)
        for kind, data in files.items():
            with pytest.raises(DataError) as caught:
                decode_image(data)
            assert f"got {kind}" in str(caught.value)
            reasons[str(caught.value)] += 1
    assert len(reasons) <= 9
    assert not [reason for reason in reasons if re.search(r"0x|\d|BytesIO", reason)]
