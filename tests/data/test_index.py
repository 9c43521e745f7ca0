"""The index of any tars: one row an example, classes, splits, and rejects that stay few."""

import collections
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from raygrad.data.index import build_index, read_index, shard_names, write_index
from raygrad.data.reading import read_rows, rows_of_keys
from raygrad.errors import ConfigError, DataError
from tests.data.making import BLOCK, example, examples, png, put, tar

KEYS = [f"k{n:04d}" for n in range(300)]


@pytest.fixture
def urls(tmp_path):
    """Three shards of 100 examples."""
    return [put(tmp_path, f"train-{n}.tar", examples(KEYS[n::3])) for n in range(3)]


def build(train, test=(), **options):
    return build_index(train, list(test), **({"val_fraction": 0.1} | options))


def rejects(index):
    return [tuple(row.values()) for row in index.rejects.to_pylist()]


def test_every_example_has_one_row_and_every_shard_its_counts(urls, tmp_path):
    test = put(tmp_path, "test.tar", examples(["t0", "t1"]))
    index = build(urls, [test])
    assert sorted(index.examples["key"].to_pylist()) == sorted([*KEYS, "t0", "t1"])
    assert index.shards["num_examples"].to_pylist() == [100, 100, 100, 2]
    assert index.classes == ("0", "1", "2")
    assert index.rows("test")["key"].to_pylist() == ["t0", "t1"]
    with open(urls[0], "rb") as stream:
        assert index.shards["num_bytes"].to_pylist()[0] == len(stream.read())


def test_a_parallel_map_gives_the_same_index(urls):
    with ThreadPoolExecutor(2) as pool:
        assert build(urls, map_fn=pool.map).examples.equals(build(urls).examples)


def test_validation_depends_on_keys_alone(urls, tmp_path):
    one = put(tmp_path, "all.tar", examples(sorted(KEYS, reverse=True)))
    assert set(build(urls).rows("val")["key"].to_pylist()) == set(
        build([one]).rows("val")["key"].to_pylist()
    )
    assert set(build(urls, split_seed=1).rows("val")["key"].to_pylist()) != set(
        build(urls).rows("val")["key"].to_pylist()
    )


def test_an_index_comes_back_from_disk_as_it_was(urls, tmp_path):
    index = build(urls)
    write_index(str(tmp_path), index)
    back = read_index(str(tmp_path))
    assert back.examples.equals(index.examples)
    assert back.shards.equals(index.shards)
    assert (back.classes, back.digest) == (index.classes, index.digest)


def test_folders_number_their_classes_in_sorted_order_over_all_training_shards(tmp_path):
    train = [
        put(tmp_path, "a.tar", [("n2/x.jpg", png())]),
        put(tmp_path, "b.tar", [("n1/y.jpg", png())]),
    ]
    test = [put(tmp_path, "t.tar", [("n1/z.jpg", png()), ("n9/z.jpg", png())])]
    index = build(train, test, labels="folder", max_reject_share=0.5)
    assert index.classes == ("n1", "n2")
    assert dict(
        zip(index.examples["key"].to_pylist(), index.examples["label"].to_pylist(), strict=True)
    ) == {
        "n2/x": 1,
        "n1/y": 0,
        "n1/z": 0,
    }
    assert rejects(index) == [("t", "n9/z", "label is no class: 'n9'")]


def test_named_classes_are_given_their_place(tmp_path):
    members = [
        ("x.jpg", png()),
        ("x.json", b'{"c": "dog"}'),
        ("y.jpg", png()),
        ("y.json", b'{"c": 0}'),
    ]
    index = build([put(tmp_path, "a.tar", members)], labels="json:c", classes=["cat", "dog"])
    assert index.examples["label"].to_pylist() == [1, 0]


@pytest.mark.parametrize("label", ["cat", "-1", "1.0", "3", "٣", "1e3", "9" * 30, "0x1"])
def test_a_label_that_is_no_class_is_rejected(tmp_path, label):
    url = put(tmp_path, "a.tar", [*examples(KEYS), *example("bad", label)])
    index = build([url], classes=["a", "b", "c"])
    assert [(key, reason.split(":")[0]) for _, key, reason in rejects(index)] == [
        ("bad", "label is no class")
    ]
    assert index.examples.num_rows == len(KEYS)


def test_a_key_in_another_shard_gets_that_shards_name_and_is_read_by_it(urls, tmp_path):
    """Keys counted anew in each shard are different examples; what is read is each one's own."""
    members = [*example("new", 0), *example("k0000", 1, image=png(200)), *example("k0001", 2)]
    again = put(tmp_path, "again.tar", members)
    index = build([*urls, again])
    found = collections.Counter(index.examples["key"].to_pylist())
    assert found == dict.fromkeys([*KEYS, "new", "again/k0000", "again/k0001"], 1)
    assert index.rejects.num_rows == 0
    assert [note for note in index.notes if "2 keys" in note and "'again/k0000'" in note]
    read = {e.key: e for e in read_rows(index, index.examples)}
    assert len(read) == 303
    assert (read["again/k0000"].image, read["again/k0000"].label) == (png(200), 1)
    assert read["k0000"].image == png()
    assert [e.key for e in read_rows(index, rows_of_keys(index, ["again/k0001"]))] == [
        "again/k0001"
    ]


def test_keys_counted_anew_in_each_split_are_training_and_test_examples(tmp_path):
    train, test = (put(tmp_path, f"{s}/0.tar", examples(KEYS[:30])) for s in ("train", "test"))
    index = build([train], [test])
    assert index.rejects.num_rows == 0
    assert index.rows("test").num_rows == 30
    assert set(index.rows("test")["key"].to_pylist()) == {f"test-0/{key}" for key in KEYS[:30]}


def test_a_key_that_already_bears_another_shards_name_is_a_reject(tmp_path):
    first = put(tmp_path, "a.tar", [*examples(["k", "b/k"]), *examples(KEYS)])
    index = build([first, put(tmp_path, "b.tar", examples(["k"]))])
    assert rejects(index) == [("b", "k", "duplicate key, first in a")]
    assert index.examples.num_rows == 302


def test_keys_whose_hashes_collide_both_stay(urls, monkeypatch):
    constant = lambda keys: np.zeros(len(keys), "u8")  # noqa: E731
    monkeypatch.setattr("raygrad.data.index_rows.key_hashes", constant)
    assert build(urls, val_fraction=0.1).examples.num_rows == len(KEYS)


def test_up_to_one_percent_of_rejects_is_accepted_and_no_more(tmp_path):
    bad = [("x0.jpg", png()), ("x1.jpg", png()), ("x2.jpg", png()), ("x3.jpg", png())]
    accepted = put(tmp_path, "a.tar", [*examples(KEYS), *bad[:3]])
    assert build([accepted]).rejects.num_rows == 3
    refused = put(tmp_path, "b.tar", [*examples(KEYS), *bad])
    with pytest.raises(
        DataError, match=r"at most 1.000% .* got 4 against 300 .*no label: cls \(4\)"
    ):
        build([refused])
    assert build([refused], max_reject_share=0.02).rejects.num_rows == 4


def test_strict_fails_on_the_first_and_names_it(tmp_path):
    url = put(tmp_path, "a.tar", [*examples(KEYS), ("x0.jpg", png())])
    with pytest.raises(DataError, match="'x0' in a: no label"):
        build([url], strict=True)


def test_a_shard_cut_at_a_member_boundary_is_too_much_even_as_one_row_of_rejects(urls):
    content = tar(examples(KEYS[0::3]))
    put_back = urls[0]
    with open(put_back, "wb") as stream:
        stream.write(content[: 4 * BLOCK * 50])
    with pytest.raises(DataError, match="got 50 against 250"):
        build(urls)
    index = build(urls, max_reject_share=0.2)
    assert rejects(index) == [
        ("train-0", "", "the end of the archive is missing, so the tar is cut")
    ]
    assert index.shards["num_examples"].to_pylist() == [50, 100, 100]


def test_a_known_count_finds_a_tar_that_was_written_short(urls):
    expected = {urls[0]: 100, urls[1]: 101}
    index = build(urls, expected_counts=expected)
    assert rejects(index) == [("train-1", "", "the shard must hold 101 examples, it holds 100")]
    with pytest.raises(DataError, match="must hold 101"):
        build(urls, expected_counts=expected, strict=True)
    with pytest.raises(DataError, match="got 50 against 300"):
        build(urls, expected_counts={urls[2]: 150})


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, tar([])])
def test_an_empty_or_garbage_shard_counts_as_one_of_the_usual_size(urls, tmp_path, content):
    with pytest.raises(DataError, match="got 100 against 300"):
        build([*urls, put(tmp_path, "x.tar", content)])


def test_no_usable_example_at_all_is_an_error_whatever_is_accepted(tmp_path):
    with pytest.raises(DataError, match="0 usable"):
        build([put(tmp_path, "x.tar", b"")], max_reject_share=1.0)


def test_shards_of_one_name_are_told_apart_by_their_folders():
    assert shard_names(["s3://b/train/0.tar", "s3://b/val/0.tar"]) == ["train-0", "val-0"]
    assert shard_names(["x/0.tar", "y/1.tar"]) == ["0", "1"]
    assert shard_names(["x/a/0.tar", "y/a/0.tar"]) == ["x-a-0", "y-a-0"]
    assert shard_names(["s3://b/a/0.tar", "s3://c/a/0.tar"]) == ["b-a-0", "c-a-0"]
    assert shard_names(["/a/0.tar", "0.tar.gz", "b/1.tgz"]) == ["a-0", "0", "b-1"]
    with pytest.raises(ConfigError, match="'0' twice"):
        shard_names(["0.tar", "0.tar.zst"])
    with pytest.raises(ConfigError, match="got none"):
        shard_names([])


def test_the_schema_of_the_index_is_the_one_promised(urls):
    types = {field.name: field.type for field in build(urls).examples.schema}
    assert types == {
        "key": pa.string(),
        "key_hash": pa.uint64(),
        "shard": pa.string(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "label": pa.int64(),
        "split": pa.string(),
    }


@pytest.mark.parametrize("name", ["index", "shards"])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_table_of_a_run_is_named(name, damage, urls, tmp_path):
    """A cut file has no footer; one that was overwritten has it, and no pages before it."""
    write_index(str(tmp_path / "data"), build(urls))
    path = tmp_path / "data" / f"{name}.parquet"
    whole = path.read_bytes()
    cut = whole[: len(whole) // 2]
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    path.write_bytes(cut if damage == "cut" else bytes(len(whole) - footer) + whole[-footer:])
    with pytest.raises(DataError, match=rf"must be whole Parquet, got .*{name}\.parquet\. Res"):
        read_index(str(tmp_path / "data"))
