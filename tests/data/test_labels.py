"""Labels as people have them: names, numbers, fields, tables; what is odd is said or refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.data.class_numbers import found_classes
from raygrad.data.index import build_index
from raygrad.data.label_rules import LabelRule
from raygrad.errors import ConfigError, DataError
from tests.data.making import example, png, put

NAMES = ("cat", "dog", "eel")
KEYS = [f"{n:03d}" for n in range(30)]


def labelled(extension, labels, keys=KEYS):
    pairs = zip(keys, labels, strict=True)
    return [m for k, text in pairs for m in ((f"{k}.png", png()), (f"{k}.{extension}", text))]


def build(tmp_path, members, **options):
    return build_index([put(tmp_path, "a.tar", members)], [], val_fraction=0.0, **options)


def labels_of(index):
    rows = index.examples.select(["key", "label"]).to_pylist()
    return {row["key"]: index.classes[row["label"]] for row in rows}


WANTED = {key: NAMES[n % 3] for n, key in enumerate(KEYS)}


@pytest.mark.parametrize("extension", ["cls", "txt", "label", "class.txt", "LABEL"])
def test_class_names_may_stand_in_any_member(tmp_path, extension):
    texts = [f" {NAMES[n % 3]}\n".encode() for n in range(30)]
    index = build(tmp_path, labelled(extension, texts), labels=extension)
    assert index.classes == NAMES
    assert labels_of(index) == WANTED
    assert index.rejects.num_rows == 0
    assert index.notes == ()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b'{"a": {"b": "%s"}}', "json:a.b"),
        (b'{"a.b": "%s", "a": {"b": 7}}', "json:a.b"),
        (b'{"a": [0, {"b": "%s"}]}', "json:a.1.b"),
    ],
)
def test_a_field_of_json_may_be_within_others(tmp_path, text, rule):
    members = labelled("json", [text % NAMES[n % 3].encode() for n in range(30)])
    assert labels_of(build(tmp_path, members, labels=rule)) == WANTED


def write_csv(path, rows, head="key,label"):
    path.write_text("\ufeff" + "".join(f"{line}\r\n" for line in (head, *rows)))
    return str(path)


def test_labels_may_stand_in_a_csv_by_key_or_file_name(tmp_path):
    members = [(f"photos/{key}.png", png()) for key in KEYS]
    for form in ("photos/{}", "photos/{}.png", "./photos/{}.png", "{}.png", "{}"):
        rows = [f"{form.format(key)},{WANTED[key]}" for key in KEYS]
        index = build(tmp_path, members, labels=write_csv(tmp_path / "l.csv", rows))
        assert {k.removeprefix("photos/"): v for k, v in labels_of(index).items()} == WANTED


def test_rows_that_name_no_example_are_counted_and_said(tmp_path):
    members = [(f"{key}.png", png()) for key in KEYS]
    rows = [f"{key},{WANTED[key]}" for key in KEYS] + ["x1.jpg,cat", "x2.jpg,dog"]
    url = write_csv(tmp_path / "l.csv", rows)
    index = build(tmp_path, members, labels=url)
    assert index.notes == ("2 of 32 rows of l.csv name no example, such as 'x1'",)


def test_a_csv_without_a_head_loses_no_row(tmp_path):
    members = [(f"photos/{key}.png", png()) for key in KEYS]
    for form in ("photos/{}.png", "{}.png", "{}"):
        head, *rows = [f"{form.format(key)},{WANTED[key]}" for key in KEYS]
        index = build(tmp_path, members, labels=write_csv(tmp_path / "l.csv", rows, head))
        assert {k.removeprefix("photos/"): v for k, v in labels_of(index).items()} == WANTED
        assert index.rejects.num_rows == 0


def test_a_head_is_no_label_of_an_example_that_is_called_like_it(tmp_path):
    members = [(f"{key}.png", png()) for key in (*KEYS, "image")]
    rows = [f"{key},{WANTED[key]}" for key in KEYS]
    url = write_csv(tmp_path / "l.csv", rows, "image,label")
    index = build(tmp_path, members, labels=url, max_reject_share=0.1)
    assert labels_of(index) == WANTED
    assert index.rejects["key"].to_pylist() == ["image"]


def test_labels_may_stand_in_a_parquet_with_many_columns(tmp_path):
    url = str(tmp_path / "l.parquet")
    columns = {
        "id": range(30),
        "image_id": [f"{key}.jpg" for key in KEYS],
        "breed": [WANTED[key] for key in KEYS],
    }
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), url)
    members = [(f"{key}.png", png()) for key in KEYS]
    assert labels_of(build(tmp_path, members, labels=f"{url}:image_id:breed")) == WANTED
    assert labels_of(build(tmp_path, members, labels=url)) == WANTED
    with pytest.raises(ConfigError, match="the column 'x'"):
        build(tmp_path, members, labels=f"{url}:x:breed")


def test_a_key_without_a_row_or_with_two_that_differ_is_a_reject(tmp_path):
    rows = [f"{key},{WANTED[key]}" for key in KEYS[2:]] + ["002,cat", "003,eel"]
    members = [(f"{key}.png", png()) for key in KEYS]
    url = write_csv(tmp_path / "l.csv", rows)
    index = build(tmp_path, members, labels=url, max_reject_share=0.2)
    found = {row["key"]: row["reason"] for row in index.rejects.to_pylist()}
    assert sorted(found) == ["000", "001", "002", "003"]
    assert set(found.values()) == {"no label: l.csv has no row of this key, or two that differ"}


def test_one_row_of_a_table_is_not_the_label_of_two_examples(tmp_path):
    """A bare key of the table, and two shards that count anew: the second has no label."""
    members = [(f"{key}.png", png()) for key in KEYS]
    urls = [put(tmp_path, f"{name}.tar", members) for name in "ab"]
    url = write_csv(tmp_path / "l.csv", [f"{key},{WANTED[key]}" for key in KEYS])
    index = build_index(urls, [], val_fraction=0.0, labels=url, max_reject_share=0.6)
    assert labels_of(index) == WANTED
    assert {row["shard"] for row in index.rejects.to_pylist()} == {"b"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must have rows"),
        ("key,label\n", "must have rows"),
        ("a,b,c\n1,2,3\n", "KEY:LABEL"),
        ("key,label\nx,1\ny\n", "row 3"),
        ('key,label\nx,"' + "1\n" * 70_000, "must be CSV, got field larger"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_a_line(tmp_path, content, says):
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(ConfigError, match=says):
        build(tmp_path, [("a.png", png())], labels=str(tmp_path / "l.csv"))


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing at none\.csv"):
        build(tmp_path, [("a.png", png())], labels="none.csv")


def test_the_name_of_a_tar_may_be_its_class(tmp_path):
    urls = [
        put(tmp_path, f"{wnid}.tar", [(f"{wnid}_{n}.JPEG", png()) for n in range(4)])
        for wnid in ("n02", "n01")
    ]
    index = build_index(urls, [], val_fraction=0.0, labels="shard")
    assert index.classes == ("n01", "n02")
    assert all(key.startswith(label) for key, label in labels_of(index).items())


@pytest.mark.parametrize("name", ["./{}.png", "{}.png", "../{}.png", "/{}.png"])
def test_a_file_in_no_folder_has_no_folder_as_label(tmp_path, name):
    members = [(name.format(key), png()) for key in KEYS]
    with pytest.raises(DataError, match=r"no label: folder|leaves its folder"):
        build(tmp_path, members, labels="folder", max_reject_share=1.0)


def numbered(tmp_path, numbers, **options):
    texts = [str(number).encode() for number in numbers]
    return build(
        tmp_path, labelled("cls", texts, [f"{n:04d}" for n in range(len(texts))]), **options
    )


def test_numbers_from_one_or_with_gaps_are_said_and_numbered_anew_on_request(tmp_path):
    for numbers, empty in (((1, 2, 3), "0"), ((0, 5, 207), "1 to 4, 6 to 206")):
        kept = numbered(tmp_path, numbers * 20)
        assert len(kept.classes) == max(numbers) + 1
        assert len(kept.notes) == 1
        assert f"no training example: {empty}." in kept.notes[0]
        assert "--renumber" in kept.notes[0]
        anew = numbered(tmp_path, numbers * 20, renumber=True)
        assert anew.classes == tuple(map(str, numbers))
        assert anew.notes == ()
        assert anew.examples["label"].to_pylist() == [0, 1, 2] * 20


def test_one_wild_label_among_hundreds_is_a_reject_and_said(tmp_path):
    numbers = [n % 3 for n in range(300)]
    numbers[17] = 99999
    index = numbered(tmp_path, numbers)
    assert index.classes == ("0", "1", "2")
    assert [r["reason"] for r in index.rejects.to_pylist()] == ["label is no class: '99999'"]
    assert index.notes == (
        "labels 99999 of 1 example are far beyond the classes, which are 0 to 2: rejected",
    )


def test_few_examples_of_a_far_class_are_not_taken_for_broken(tmp_path):
    """Twenty photographs for a network of 1,000 classes have gaps, and every one is used."""
    index = numbered(tmp_path, [0, 1, 1, 0, 999] * 4)
    assert len(index.classes) == 1000
    assert index.rejects.num_rows == 0
    assert "997 of 1000 classes" in index.notes[0]


def test_what_more_examples_have_decides_between_numbers_and_names():
    mostly = found_classes({"0": 50, "1": 40, "?": 1, "x": 1, "y": 1}, LabelRule())
    assert mostly.names == ("0", "1")
    assert [mostly.number_of(text) for text in ("1", "01", "?", "x", "2", "")] == [
        1, 1, -1, -1, -1, -1,
    ]  # fmt: skip
    names = found_classes({"cat": 50, "dog": 40, "7": 1}, LabelRule())
    assert names.names == ("7", "cat", "dog")
    assert [names.number_of(text) for text in ("7", "cat", "0", "1")] == [0, 1, -1, -1]


def test_captions_are_not_taken_for_classes_without_a_word(tmp_path):
    texts = [f"a photo of {n}".encode() for n in range(30)]
    index = build(tmp_path, labelled("txt", texts), labels="txt")
    assert len(index.notes) == 1
    assert "captions" in index.notes[0]


def test_a_label_that_is_a_pointer_or_a_page_says_so(tmp_path):
    members = [
        *[m for key in KEYS for m in example(key, 0)],
        ("x.png", png()),
        ("x.cls", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    ]
    index = build(tmp_path, members, max_reject_share=0.1)
    assert index.rejects.num_rows == 1


def test_names_of_classes_survive_the_disk(tmp_path):
    from raygrad.data.index import read_index, write_index

    texts = [NAMES[n % 3].encode() for n in range(30)]
    index = build(tmp_path, labelled("cls", texts))
    write_index(str(tmp_path / "data"), index)
    assert read_index(str(tmp_path / "data")).classes == NAMES
