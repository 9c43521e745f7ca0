"""One pass over the headers of a shard finds every example, and names what is wrong."""

import gzip
import io
import os
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from raygrad.data.label_rules import LabelRule
from raygrad.data.shard_scan import scan_shard, split_name
from raygrad.errors import ConfigError, DataError
from tests.data.making import BLOCK, example, examples, png, put, tar


def scan(tmp_path, content, labels="cls"):
    return scan_shard(put(tmp_path, "a.tar", content), LabelRule(labels))


@given(st.text("ab./J", max_size=12))
def test_names_are_cut_into_key_and_extension_as_webdataset_cuts_them(name):
    key, extension = webdataset.tariterators.base_plus_ext(name)
    hidden = name.rsplit("/", 1)[-1].startswith(".")  # these webdataset gives to the folder
    expected = (key, extension.lower()) if key and not hidden else None
    assert split_name(name) == expected


def test_offsets_and_sizes_are_the_images(tmp_path):
    images = {f"k{n}": png(n) for n in range(5)}
    content = tar([m for key, data in images.items() for m in example(key, 1, "JPEG", data)])
    rows = scan(tmp_path, content).examples.to_pylist()
    assert {r["key"]: content[r["offset"] : r["offset"] + r["size"]] for r in rows} == images


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "JPG", "JPEG", "PNG", "Jpeg"])
def test_extensions_count_in_any_case(tmp_path, extension):
    assert scan(tmp_path, example("k", 3, extension)).examples["label"].to_pylist() == ["3"]


def test_labels_come_from_a_field_of_json_or_from_the_folder(tmp_path):
    members = [("n01/x.jpg", png()), ("n01/x.json", b'{"label": 7, "name": "cat"}')]
    assert scan(tmp_path, members, "json:label").examples["label"].to_pylist() == ["7"]
    assert scan(tmp_path, members, "json:name").examples["label"].to_pylist() == ["cat"]
    assert scan(tmp_path, members, "folder").examples["label"].to_pylist() == ["n01"]


@pytest.mark.parametrize("text", ["json:", "json", "jpg", "", "a b", "a/b"])
def test_an_unknown_place_of_labels_is_refused(text):
    with pytest.raises(ConfigError, match="labels must be"):
        LabelRule(text)


def test_members_of_a_key_need_not_be_neighbours(tmp_path):
    members = examples(["a", "b"])
    assert scan(tmp_path, members[::2] + members[1::2]).examples["key"].to_pylist() == ["a", "b"]


def test_folders_and_names_without_extension_are_passed_over(tmp_path):
    folder = tarfile.TarInfo("train.jpg")
    folder.type = tarfile.DIRTYPE
    found = scan(tmp_path, [(folder, b""), ("README", b"x"), ("._a.jpg", b"x"), *examples("a")])
    assert found.examples["key"].to_pylist() == ["a"]
    assert found.rejects == []


def _linked(kind):
    member = tarfile.TarInfo("k.jpg")
    member.type, member.linkname = kind, "/etc/passwd"
    return [(member, b""), ("k.cls", b"0")]


BAD_EXAMPLES = {
    "no image": ([("k.cls", b"0")], "no image"),
    "another kind of image": ([("k.seg.png", png()), ("k.cls", b"0")], "no image, only .seg.png"),
    "no label": ([("k.jpg", png())], "no label"),
    "empty label": (example("k", ""), "no label"),
    "empty image": (example("k", 0, "jpg", b""), "image is empty"),
    "two images": ([("k.png", png()), *example("k", 0, "jpg")], "two images"),
    "symbolic link": (_linked(tarfile.SYMTYPE), "link"),
    "hard link": (_linked(tarfile.LNKTYPE), "link"),
    "device": (_linked(tarfile.CHRTYPE), "device"),
    "absolute path": (example("/etc/k"), "leaves its folder"),
    "parent folder": (example("a/../../k"), "leaves its folder"),
    "very long key": (example("k" * 5000), "longer than"),
    "huge label": (example("k", "0" * (2**20 + 1)), "is no label"),
}


@pytest.mark.parametrize("name", BAD_EXAMPLES)
def test_an_unusable_example_is_rejected_with_its_reason_and_the_others_stay(tmp_path, name):
    members, reason = BAD_EXAMPLES[name]
    found = scan(tmp_path, [*examples("a"), *members, *examples("b")])
    assert found.examples["key"].to_pylist() == ["a", "b"]
    assert found.damage is None
    assert [reason in text for _, text in found.rejects] == [True]


def test_a_repeated_key_is_rejected_and_its_first_example_stays(tmp_path):
    found = scan(tmp_path, [*example("k", 1), *example("b"), *example("k", 2), *example("k", 3)])
    assert found.examples.select(["key", "label"]).to_pylist() == [
        {"key": "k", "label": "1"},
        {"key": "b", "label": "0"},
    ]
    assert found.rejects == [("k", "duplicate key within the shard")] * 2


def test_keys_may_be_unicode_and_hundreds_of_letters_long(tmp_path):
    keys = ["日本語/狗", "é" * 300]
    assert scan(tmp_path, examples(keys)).examples["key"].to_pylist() == keys


def test_a_key_that_is_not_utf8_is_rejected(tmp_path):
    content = tar(example("k\udcff"), format=tarfile.GNU_FORMAT, errors="surrogateescape")
    assert scan(tmp_path, content).rejects == [("k\\udcff", "key is not UTF-8")]


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"[7]", None),
        (b"{", None),
        (b'{"label": null}', None),
        (b'{"label": true}', None),
        (b'{"label": "7"}', "7"),
        (b'{"label": 1.5}', None),
        (b"[" * 10**5, None),
    ],
)
def test_json_without_the_field_is_no_label(data, label):
    assert LabelRule("json:label").label("k", data) == label


def test_a_tar_cut_anywhere_is_noticed_and_keeps_only_whole_examples(tmp_path):
    content = tar(examples("abc"))
    end = len(content.rstrip(b"\0"))
    end = -(-end // BLOCK) * BLOCK
    whole = {row["key"]: row for row in scan(tmp_path, content).examples.to_pylist()}
    for length in range(0, end + 1, BLOCK // 4):
        found = scan(tmp_path, content[:length])
        assert found.damage, length
        assert all(whole[row["key"]] == row for row in found.examples.to_pylist())
        last_bytes = [4 * BLOCK * at + 3 * BLOCK + 1 for at in range(3)]
        assert len(found.examples) == sum(last <= length for last in last_bytes), length


def test_a_tar_cut_within_its_closing_blocks_is_whole(tmp_path):
    content = tar(examples("abc"))
    end = -(-len(content.rstrip(b"\0")) // BLOCK) * BLOCK
    assert scan(tmp_path, content[: end + BLOCK]).damage is None


def _overwritten(content, at, data):
    return content[:at] + data + content[at + len(data) :]


def _negative_size():
    member = tarfile.TarInfo("b.jpg")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # base 256, -1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar(examples("a"))[: 4 * BLOCK] + bytes(header) + tar(examples("b"))


DAMAGED = {
    "no byte": (b"", ""),
    "only closing blocks": (tar([]), "holds no example"),
    "text": (b"not a tar" * 500, "no whole tar"),
    "zeros": (bytes(20 * BLOCK), "holds no example"),
    "gzip": (gzip.compress(tar(examples("abc"))), "gzip"),
    "a header of garbage": (
        _overwritten(tar(examples("abc")), 4 * BLOCK, b"\x9c" * BLOCK),
        "no tar header",
    ),
    "a wrong checksum": (_overwritten(tar(examples("abc")), 8 * BLOCK, b"x"), "no tar header"),
    "two tars in one": (tar(examples("ab")) + tar(examples("c")), "after the end"),
    "a negative size": (_negative_size(), ""),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_tar_says_so_and_keeps_what_comes_before(tmp_path, name):
    content, says = DAMAGED[name]
    found = scan(tmp_path, content)
    assert says in found.damage
    assert found.examples["key"].to_pylist() == sorted(found.examples["key"].to_pylist())


@pytest.mark.parametrize("hole", ["to the end", "60 KiB", "1 block and garbage"])
def test_a_hole_of_zeros_is_no_end(tmp_path, hole):
    """A file that was allocated before it was written, or lacks a piece."""
    content = tar(examples([f"k{at:03d}" for at in range(100)]))  # 4 blocks each
    stop = {"to the end": len(content), "60 KiB": 160 * BLOCK + 60 * 1024}.get(hole, 161 * BLOCK)
    content = content[: 160 * BLOCK] + bytes(stop - 160 * BLOCK) + content[stop:]
    found = scan(tmp_path, content)
    assert found.examples.num_rows == 40
    assert "zero bytes" in found.damage or "data after the end" in found.damage


@pytest.mark.parametrize("blocks", [2, 20, 128, 2048])
def test_a_tar_padded_to_a_record_is_whole(tmp_path, blocks):
    """GNU tar pads to 20 blocks, or to those of its -b."""
    content = tar(examples("abc"))
    end = -(-len(content.rstrip(b"\0")) // BLOCK) * BLOCK + 2 * BLOCK
    record = blocks * BLOCK
    whole = content[:end].ljust(-(-end // record) * record, b"\0")
    assert scan(tmp_path, whole).damage is None


def test_images_whose_names_have_dots_are_rejects_each(tmp_path):
    """A key ends at the first dot: cat.0.png and cat.1.png have one, and no image is theirs."""
    members = [(f"cat.{at}.png", png(at)) for at in range(3)]
    found = scan(tmp_path, [*members, ("cat.cls", b"0"), *examples("ab")])
    assert found.examples["key"].to_pylist() == ["a", "b"]
    assert [key for key, _ in found.rejects] == ["cat.0.png", "cat.1.png", "cat.2.png"]


def test_a_compressed_tar_gives_no_example_because_its_offsets_would_be_wrong(tmp_path):
    noise = [example(key, 0, "jpg", os.urandom(20_000)) for key in "abc"]
    found = scan(tmp_path, gzip.compress(tar([member for pair in noise for member in pair])))
    assert found.examples.num_rows == 0
    assert "gzip" in found.damage


def test_a_chain_of_long_names_ends_as_damage(tmp_path):
    buffer = io.BytesIO()
    for _ in range(5000):
        link = tarfile.TarInfo("././@LongLink")
        link.type, link.size = tarfile.GNUTYPE_LONGNAME, 2
        buffer.write(link.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(BLOCK, b"\0"))
    assert "no whole tar" in scan(tmp_path, buffer.getvalue()).damage


def test_the_digest_changes_with_a_name_a_label_or_a_size_and_with_nothing_else(tmp_path):
    base = [*example("a", 1), *example("b", 2)]
    contents = [tar(base), tar(base), tar([*example("a", 1), *example("c", 2)])]
    contents += [tar([*example("a", 1), *example("b", 3)])]
    contents += [tar([*example("a", 1), *example("b", 2, image=png(size=(40, 40)))])]
    digests = [scan(tmp_path, content).digest for content in contents]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_a_shard_that_is_not_there_is_an_error_and_no_reject(tmp_path):
    with pytest.raises((DataError, FileNotFoundError)):
        scan_shard(str(tmp_path / "none.tar"))
