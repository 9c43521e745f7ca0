"""A corpus of broken inputs: each ends as a reject row or a clear error; nothing is lost or run."""

import gzip
import tarfile

import pytest

from raygrad.data.arrays import load_arrays
from raygrad.data.index import build_index
from raygrad.errors import RaygradError
from tests.data.making import BLOCK, example, jpeg, png, put, tar
from tests.data.test_decode import NO_IMAGES

GOOD = [f"good{n:03d}" for n in range(60)]


def good(keys=GOOD):
    return [pair for at, key in enumerate(keys) for pair in example(key, at % 3)]


def link(kind, target="/etc/passwd", name="bad.png"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return (member, b"")


def label(text):
    return example("bad", text)


EXAMPLES = {f"image is {name}": example("bad", 0, "jpg", data) for name, data in NO_IMAGES.items()}
EXAMPLES |= {
    f"label is {text!r}": label(text) for text in ("", "cat", "-1", "9", "1.5", "९", "\x00")
}
EXAMPLES |= {
    "no label": [("bad.png", png())],
    "no image": [("bad.cls", b"0")],
    "only text": [("bad.txt", b"hello")],
    "two images": [("bad.jpg", jpeg()), *example("bad")],
    "image of another size": example("bad", 0, "png", png(size=(5, 4))),
    "code named as an image": example("bad", 0, "png", b"import os; os._exit(1)"),
    "pickle named as an image": example("bad", 0, "jpg", b"cos\n_exit\n(I1\ntR."),
    "code beside an image": [
        ("bad.pyd", b"import os"),
        ("bad.pkl", b"cos\n_exit\n(I1\ntR."),
        ("bad.cls", b"0"),
    ],
    "symbolic link": [link(tarfile.SYMTYPE), ("bad.cls", b"0")],
    "hard link to a good image": [link(tarfile.LNKTYPE, "good000.png"), ("bad.cls", b"0")],
    "fifo": [link(tarfile.FIFOTYPE), ("bad.cls", b"0")],
    "link as label": [("bad.png", png()), link(tarfile.SYMTYPE, "/etc/passwd", "bad.cls")],
    "absolute path": example("/tmp/bad"),
    "path out of its folder": example("../../bad"),
    "very long key": example("bad" * 2000),
    "repeated key": example("good007", 1, "png", png(9)),
}
"""One bad example each, put between good ones."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_bad_example_is_rejected_once_and_every_good_one_is_used(tmp_path, name):
    members = [*good(GOOD[:30]), *EXAMPLES[name], *good(GOOD[30:])]
    url = put(tmp_path, "a.tar", tar(members, errors="surrogateescape"))
    index = build_index([url], [], val_fraction=0.2, max_reject_share=0.05, classes=["a", "b", "c"])
    loaded = _load(index)
    if name == "image of another size":
        assert "must have one size" in loaded
        return
    used, rejected = loaded
    assert sorted(used) == GOOD
    assert len(rejected) == 1
    assert all(reason and "\n" not in reason for _, reason in rejected)
    assert len(used) + len(rejected) == len(GOOD) + 1


def _load(index):
    """Returns used keys and all rejects, or the text of the error; used + rejected = index."""
    used, rejected = [], [(r["key"], r["reason"]) for r in index.rejects.to_pylist()]
    for split in ("train", "val", "test"):
        try:
            arrays = load_arrays(index, split, channels=3)
        except RaygradError as error:
            return str(error)
        assert len(arrays.keys) + arrays.rejects.num_rows == index.rows(split).num_rows
        used += arrays.keys
        rejected += [(r["key"], r["reason"]) for r in arrays.rejects.to_pylist()]
    return used, rejected


WHOLE = tar(good())
END = 4 * BLOCK * len(GOOD)

TARS = {
    "of no byte": b"",
    "of one byte": b"x",
    "of zeros": bytes(10240),
    "without examples": tar([]),
    "of text": b"<html>404 not found</html>" * 100,
    "of random bytes": bytes((n * 7919) % 251 for n in range(50_000)),
    "compressed": gzip.compress(WHOLE),
    "cut within the first header": WHOLE[:300],
    "cut within an image": WHOLE[: 40 * BLOCK + BLOCK + 20],
    "cut within a label's header": WHOLE[: 40 * BLOCK + 2 * BLOCK + 100],
    "cut between image and label": WHOLE[: 40 * BLOCK + 2 * BLOCK],
    "cut between examples": WHOLE[: 40 * BLOCK],
    "without its end": WHOLE[:END],
    "with a garbage header": WHOLE[: 40 * BLOCK] + b"\xa5" * BLOCK + WHOLE[41 * BLOCK :],
    "followed by another": WHOLE[: END + 2 * BLOCK] + tar(good(["later"])),
    "with its end in the middle": WHOLE[: 40 * BLOCK] + bytes(2 * BLOCK) + WHOLE[40 * BLOCK :],
}
"""One bad tar each, put beside two good ones."""


@pytest.mark.parametrize("name", TARS)
def test_a_bad_tar_is_refused_and_named_or_used_as_far_as_it_is_whole(tmp_path, name):
    other = [put(tmp_path, f"{n}.tar", good([f"{n}{key}" for key in GOOD])) for n in "ab"]
    urls = [*other, put(tmp_path, "bad.tar", TARS[name])]
    with pytest.raises(RaygradError, match=r"shard bad|bad ''"):
        build_index(urls, [], val_fraction=0.2, strict=True)
    if name not in ("without its end", "followed by another"):
        with pytest.raises(RaygradError, match=r"at most .* may be rejected"):
            build_index(urls, [], val_fraction=0.2)
    index = build_index(urls, [], val_fraction=0.2, max_reject_share=0.6)
    used, rejected = _load(index)
    assert [key for key, _ in rejected if not key] == [""]
    assert {f"{n}{key}" for n in "ab" for key in GOOD} <= set(used)
    assert set(used) - {f"{n}{key}" for n in "ab" for key in GOOD} <= set(GOOD)


def test_the_corpus_is_as_large_as_it_should_be():
    assert len(EXAMPLES) + len(TARS) >= 25
