"""Odd inputs as they are met: each is used, rejected with a reason, or hidden; none is lost.

In every case: used + rejected (+ hidden, which are counted) is what was put there.
"""

import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raygrad.data.arrays import load_arrays
from raygrad.data.index import build_index
from raygrad.data.places import TableOptions, resolve
from raygrad.data.shards import write_shards
from raygrad.data.sources import HeldOut
from tests.data.making import example, jpeg, noise, png, put, tar
from tests.data.test_more_members import encoded

GOOD = [f"good{n:03d}" for n in range(40)]
SIZE = (24, 16)


def good():
    return [m for n, key in enumerate(GOOD) for m in example(key, n % 3, "jpg", jpeg(n))]


def bad(image=None, label=b"0", name="bad", ending="jpg", cls="cls"):
    return [(f"{name}.{ending}", jpeg(7) if image is None else image), (f"{name}.{cls}", label)]


def saved(array, kind):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def long_named(form):
    member = tarfile.TarInfo("d/" * 60 + "bad.jpg")
    member.size = len(jpeg(7))
    return tar([(member, jpeg(7)), ("d/" * 60 + "bad.cls", b"0")], format=form)


AVIF = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(99)
USED, REJECTED, HIDDEN = "used", "rejected", "hidden"

MEMBERS = {
    "webp under a jpeg's name": (bad(encoded("WEBP")), USED),
    "gif under a jpeg's name": (bad(encoded("GIF")), USED),
    "tiff under a png's name": (bad(encoded("TIFF"), ending="png"), USED),
    "bmp under a jpeg's name": (bad(encoded("BMP")), USED),
    "png under a webp's name": (bad(png(size=SIZE), ending="webp"), USED),
    "cmyk": (bad(saved(noise(1), "JPEG")), USED),
    "16 bits": (bad(saved(np.full(SIZE[::-1], 300, np.uint16), "PNG"), ending="png"), USED),
    "avif": (bad(AVIF), REJECTED),
    "heic": (bad(b"\0\0\0\x18ftypheic" + bytes(99)), REJECTED),
    "svg": (bad(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), REJECTED),
    "pdf": (bad(b"%PDF-1.4" + bytes(99)), REJECTED),
    "page": (bad(b"<!doctype html><html>403</html>"), REJECTED),
    "s3's refusal": (
        bad(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
        REJECTED,
    ),
    "api's refusal": (bad(b'{"error": "rate limit"}'), REJECTED),
    "git-lfs pointer": (bad(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), REJECTED),
    "appledouble": (bad(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(200)), REJECTED),
    "zeros": (bad(bytes(4096)), REJECTED),
    "numpy": (bad(b"\x93NUMPY" + bytes(99)), REJECTED),
    "zip": (bad(b"PK\3\4" + bytes(99)), REJECTED),
    "gzipped image": (bad(gzip.compress(jpeg(7))), REJECTED),
    "floating point": (bad(saved(np.ones(SIZE[::-1], np.float32), "TIFF"), ending="tif"), REJECTED),
    "32 bits": (bad(saved(np.full(SIZE[::-1], 2**20, np.int32), "TIFF"), ending="tif"), REJECTED),
    "half an image": (bad(jpeg(7)[: len(jpeg(7)) // 2]), REJECTED),
    "label with a byte order mark": (bad(label=b"\xef\xbb\xbf1"), USED),
    "label with blank lines": (bad(label=b"\r\n 1 \r\n\r\n"), USED),
    "label with a leading zero": (bad(label=b"01"), USED),
    "label in UTF-16": (bad(label="1".encode("utf-16")), REJECTED),
    "label with a sign": (bad(label=b"+1"), REJECTED),
    "two labels": (bad(label=b"1,2"), REJECTED),
    "list as label": (bad(label=b"[1]"), REJECTED),
    "one-hot label": (bad(label=b"0 1 0"), REJECTED),
    "float as label": (bad(label=b"1.0"), REJECTED),
    "NaN as label": (bad(label=b"nan"), REJECTED),
    "page as label": (bad(label=b"<html></html>"), REJECTED),
    "gzip as label": (bad(label=gzip.compress(b"1")), REJECTED),
    "blank label": (bad(label=b" \n"), REJECTED),
    "label of two megabytes": (bad(label=b"1" * 2**21), REJECTED),
    "label in capitals": (bad(cls="CLS"), USED),
    "two labels of a key": ([*bad(), ("bad.cls", b"1")], "both"),
    "label without an image": ([("bad.cls", b"1")], REJECTED),
    "mask without an image": ([("bad.seg.png", png()), ("bad.cls", b"1")], REJECTED),
    "blanks in the name": (bad(name="a bad one"), USED),
    "accents that are composed": (bad(name="be\u0301b\u00e9"), USED),
    "emoji": (bad(name="\U0001f408"), USED),
    "backslashes": (bad(name="dir\\bad"), USED),
    "capitals of another key": (bad(name="GOOD001"), USED),
    "folder before the key": (bad(name="./x/y/bad"), USED),
    "a long name, pax": (long_named(tarfile.PAX_FORMAT), USED),
    "a long name, gnu": (long_named(tarfile.GNU_FORMAT), USED),
    "hidden file": ([("._bad.jpg", b"x")], HIDDEN),
    "hidden folder": ([("x/.trash/bad.jpg", jpeg(7))], HIDDEN),
    "what a Mac zips": ([("__MACOSX/bad.jpg", jpeg(7))], HIDDEN),
    "a NAS's thumbnail": ([("@eaDir/bad.jpg/S.jpg", jpeg(7))], HIDDEN),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_an_odd_member_is_used_or_rejected_or_hidden(tmp_path, name):
    odd, outcome = MEMBERS[name]
    if isinstance(odd, bytes):
        closing = len(odd.rstrip(b"\0")) // tarfile.BLOCKSIZE + 1
        content = odd[: closing * tarfile.BLOCKSIZE] + tar(good())
    else:
        content = tar([*odd, *good()])
    index = build_index(
        [put(tmp_path, "a.tar", content)], [], val_fraction=0.0, max_reject_share=0.1
    )
    used, rejects = outcome_of(index)
    assert len(used - set(GOOD)) == (outcome in (USED, "both"))
    assert set(GOOD) <= used
    assert len(rejects) == (outcome in (REJECTED, "both"))
    assert any("1 hidden" in note for note in index.notes) == (outcome == HIDDEN)
    assert not any("0x" in reason or "\n" in reason for reason in rejects)


def outcome_of(index):
    """Returns the keys of the decoded images, and all reasons."""
    arrays = load_arrays(index, "train", channels=3)
    reasons = [
        row["reason"] for table in (index.rejects, arrays.rejects) for row in table.to_pylist()
    ]
    assert arrays.rejects.num_rows + len(arrays.keys) == index.examples.num_rows
    return set(arrays.keys), reasons


FILES = {
    "no ending": ("cat/bad", jpeg(7), USED),
    "an ending of no image": ("cat/bad.download", jpeg(7), USED),
    "jfif": ("cat/bad.jfif", jpeg(7), USED),
    "capitals": ("cat/BAD.JPG", jpeg(7), USED),
    "a number for an ending": ("cat/bad.1", jpeg(7), USED),
    "webp": ("cat/bad.webp", encoded("WEBP"), USED),
    "a folder within": ("cat/x/y/bad.jpg", jpeg(7), USED),
    "two dots": ("cat/a.b.jpg", jpeg(7), USED),
    "page under a jpeg's name": ("cat/bad.jpg", b"<html></html>", REJECTED),
    "of no byte": ("cat/bad.jpg", b"", REJECTED),
    "half an image": ("cat/bad.jpg", jpeg(7)[:200], REJECTED),
    "heic": ("cat/bad.heic", b"\0\0\0\x18ftypheic" + bytes(99), REJECTED),
    "avif": ("cat/bad.avif", AVIF, REJECTED),
    "text": ("cat/bad.txt", b"a caption", REJECTED),
    "no class": ("bad.jpg", jpeg(7), REJECTED),
    "a companion": ("cat/0.txt", b"a caption", "companion"),
    "hidden": ("cat/._0.jpg", b"x", HIDDEN),
    "hidden folder": (".git/bad.jpg", jpeg(7), HIDDEN),
}


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_of_a_folder_is_used_or_rejected_or_hidden(tmp_path, name):
    path, data, outcome = FILES[name]
    for at in range(40):
        put(tmp_path, f"in/{'cat' if at % 2 else 'dog'}/{at}.jpg", jpeg(at))
    put(tmp_path, "in/cat/0.jpg", jpeg(0))
    put(tmp_path, f"in/{path}", data)
    found = resolve(
        [str(tmp_path / "in")], [], held_out=HeldOut(0.0), options=TableOptions()
    ).source
    written = write_shards(found, "x", str(tmp_path / "out"), shard_bytes=10**7, seed=0)
    index = build_index(
        written.train_urls, [], val_fraction=0.0, max_reject_share=0.1, classes=found.classes
    )
    used, reasons = outcome_of(index)
    assert len(used) == 41 + (outcome == USED)
    assert len(reasons) + len(found.rejects) == (outcome == REJECTED)
    assert any("1 hidden" in note for note in found.notes) == (outcome == HIDDEN)
    assert any("beside images" in note for note in found.notes) == (outcome == "companion")


CELLS = {
    "no image": ({"bytes": None, "path": "x.jpg"}, 0, REJECTED),
    "null": (None, 0, REJECTED),
    "page": ({"bytes": b"<html></html>", "path": None}, 0, REJECTED),
    "webp": ({"bytes": encoded("WEBP"), "path": "x.jpg"}, 0, USED),
    "null label": ({"bytes": jpeg(7), "path": None}, None, REJECTED),
    "-1": ({"bytes": jpeg(7), "path": None}, -1, REJECTED),
    "a label beyond the names": ({"bytes": jpeg(7), "path": None}, 9, REJECTED),
}


@pytest.mark.parametrize("name", CELLS)
def test_an_odd_row_of_a_table_is_used_or_rejected(tmp_path, name):
    image, label, outcome = CELLS[name]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [*({"bytes": jpeg(at), "path": None} for at in range(40)), image]
    names = {"label": {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]}}
    content = pa.table(
        {"image": pa.array(images, struct), "label": [*(at % 3 for at in range(40)), label]}
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": names}})})
    pq.write_table(content, tmp_path / "a.parquet")
    given = [str(tmp_path / "a.parquet")]
    found = resolve(given, [], held_out=HeldOut(0.0), options=TableOptions()).source
    written = write_shards(found, "x", str(tmp_path / "out"), shard_bytes=10**7, seed=0)
    index = build_index(
        written.train_urls, [], val_fraction=0.0, max_reject_share=0.1, classes=found.classes
    )
    used, reasons = outcome_of(index)
    assert len(used) == 40 + (outcome == USED)
    assert len(reasons) + len(found.rejects) == (outcome == REJECTED)


def test_the_corpus_is_as_large_as_it_should_be():
    assert len(MEMBERS) + len(FILES) + len(CELLS) >= 60
