"""Parquet and Hugging Face data sets: every row is an example or a reject, under a stable key."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.data.index import build_index
from raygrad.data.shards import write_shards
from raygrad.data.sources import Source
from raygrad.data.table_examples import table_splits
from raygrad.errors import ConfigError
from tests.data.making import png

NAMES = ["cat", "dog", "eel"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def huggingface(label="label", names=NAMES):
    features = {
        "image": {"_type": "Image"},
        label: {"_type": "ClassLabel", "names": names},
        "note": {"_type": "Value", "dtype": "string"},
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def table(first, count=20, metadata=None, labels=None):
    images = [{"bytes": png(first + at), "path": None} for at in range(count)]
    labels = [at % 3 for at in range(count)] if labels is None else labels
    columns = {"image": pa.array(images, IMAGE), "label": labels, "note": ["x"] * count}
    return pa.table(columns).replace_schema_metadata(metadata)


def put(folder, name, content, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=7, **options)
    return str(path)


def contents(examples):
    return [(e.key, e.label, e.image) for e in examples]


def test_rows_of_a_hugging_face_table_are_examples_with_the_names_of_its_classes(tmp_path):
    urls = [
        put(tmp_path, f"train-{n}-of-2.parquet", table(20 * n, 20, huggingface())) for n in (0, 1)
    ]
    test = put(tmp_path, "test-0-of-1.parquet", table(100, 5, huggingface()))
    found = table_splits(urls, [test])
    assert found.numbering.names == tuple(NAMES)
    assert contents(found.train) == [
        (f"train-{n}-of-2-{at:08d}", at % 3, png(20 * n + at)) for n in (0, 1) for at in range(20)
    ]
    assert contents(found.test) == [
        (f"test-0-of-1-{at:08d}", at % 3, png(100 + at)) for at in range(5)
    ]
    assert found.rejects == ()


def test_rows_are_taken_in_any_order(tmp_path):
    urls = [put(tmp_path, f"{n}.parquet", table(20 * n)) for n in (0, 1)]
    train = table_splits(urls, []).train
    everything = contents(train)
    positions = np.array([39, 0, 7, 6, 21, 20])
    assert contents(train.take(positions)) == [everything[at] for at in positions]
    assert train.take(positions).fingerprint() != train.fingerprint()


def test_shards_of_a_table_hold_its_rows_in_order_and_are_kept(tmp_path):
    urls = [put(tmp_path, f"{n}.parquet", table(20 * n, 20, huggingface())) for n in (0, 1)]
    found = table_splits(urls, [])
    source = Source(found.train, found.test, found.numbering.names, 3)
    out = str(tmp_path / "out")
    written = write_shards(source, "tables", out, shard_bytes=25_000, seed=0)
    assert len(written.train_urls) > 1
    index = build_index(written.train_urls, [], val_fraction=0.0, classes=source.classes)
    assert index.examples["key"].to_pylist() == list(found.train.keys())
    assert index.examples["label"].to_pylist() == found.train.labels.tolist()
    assert index.classes == tuple(NAMES)
    assert write_shards(source, "tables", out, shard_bytes=25_000, seed=0) == written
    changed = Source(found.train.take(np.arange(39)), found.test, source.classes, 3)
    with pytest.raises(ConfigError, match="has changed"):
        write_shards(changed, "tables", out, shard_bytes=25_000, seed=0)


@pytest.mark.parametrize(
    ("values", "names", "labels"),
    [
        (["dog", "cat", "dog"] * 5, ("cat", "dog"), [1, 0, 1] * 5),
        ([2.0, 0.0, 1.0] * 5, ("0", "1", "2"), [2, 0, 1] * 5),
        ([b"b", b"a", b"a"] * 5, ("a", "b"), [1, 0, 0] * 5),
        ([True, False, True] * 5, ("0", "1"), [1, 0, 1] * 5),
    ],
)
def test_labels_of_every_type_are_classes(tmp_path, values, names, labels):
    found = table_splits([put(tmp_path, "a.parquet", table(0, 15, labels=values))], [])
    assert (found.numbering.names, found.train.labels.tolist()) == (names, labels)


def test_classes_of_files_that_number_them_otherwise_go_by_their_names(tmp_path):
    """Each split was encoded by itself."""
    train = put(tmp_path, "train.parquet", table(0, 9, huggingface()))
    own = huggingface(names=["eel", "cat", "fox"])
    test = put(tmp_path, "test.parquet", table(50, 6, own))
    found = table_splits([train], [test])
    assert found.numbering.names == tuple(NAMES)
    assert found.test.labels.tolist() == [2, 0, 2, 0]
    assert [key for key, _ in found.rejects] == ["test-00000002", "test-00000005"]
    assert all("fox" in reason for _, reason in found.rejects)
    assert found.notes == ()


@pytest.mark.parametrize("first", [True, False])
def test_a_file_without_the_names_that_another_has_is_said(tmp_path, first):
    files = [table(0, 9, huggingface()), table(50, 6)]
    urls = [
        put(tmp_path, f"{at}.parquet", one) for at, one in enumerate(files[:: 1 if first else -1])
    ]
    found = table_splits(urls[:1], urls[1:])
    assert len(found.notes) == 1
    assert "1.parquet" in found.notes[0]
    assert found.test.labels.tolist() == [0, 1, 2] * (len(found.test) // 3)


@pytest.mark.parametrize("name", ["train.v2", "part-0-c000.snappy"])
def test_names_of_files_with_dots_lose_no_row(tmp_path, name):
    """A key in a shard ends at its first dot."""
    urls = [put(tmp_path, f"{one}.parquet", table(30 * n, 20)) for n, one in enumerate((name, "b"))]
    found = table_splits(urls, [])
    tars = write_shards(
        Source(found.train, found.test, found.numbering.names, 3), "t", str(tmp_path / "out"),
        shard_bytes=2**20, seed=0,
    ).train_urls  # fmt: skip
    index = build_index(tars, [], val_fraction=0.0)
    assert (index.examples.num_rows, index.rejects.num_rows) == (40, 0)


def test_rows_without_a_label_are_rejects_with_their_keys(tmp_path):
    labels = [0, None, 1, -1, 2, 7] + [0, 1, 2] * 5
    url = put(tmp_path, "a.parquet", table(0, 21, huggingface(), labels=labels))
    found = table_splits([url], [])
    assert found.rejects == (
        ("a-00000001", "no label"),
        ("a-00000003", "no label"),
        ("a-00000005", "label is no class: '7'"),
    )
    assert len(found.train) == 18
    assert [e.image for e in found.train][:3] == [png(0), png(2), png(4)]


def test_numbers_are_numbered_anew_on_request(tmp_path):
    url = put(tmp_path, "a.parquet", table(0, 15, labels=[1, 5, 9] * 5))
    assert len(table_splits([url], []).numbering.names) == 10
    assert table_splits([url], [], renumber=True).numbering.names == ("1", "5", "9")


def test_an_image_that_is_no_bytes_is_an_empty_one(tmp_path):
    content = table(0, 3)
    images = pa.array([{"bytes": None, "path": "x.jpg"}] * 3, IMAGE)
    url = put(tmp_path, "a.parquet", content.set_column(0, "image", images))
    assert [e.image for e in table_splits([url], []).train] == [b""] * 3


def test_columns_are_told_or_named(tmp_path):
    images = pa.array([png(at) for at in range(6)])
    content = pa.table({"jpg": images, "mask": images, "cls": [0, 1] * 3, "coarse": [0, 0, 1] * 2})
    url = put(tmp_path, "a.parquet", content)
    assert [e.image for e in table_splits([url], []).train] == images.to_pylist()
    found = table_splits([url], [], image="mask", label="coarse")
    assert (found.train.image, found.train.labels.tolist()) == ("mask", [0, 0, 1] * 2)
    for options, says in (
        ({"image": "x"}, "--image"),
        ({"label": "x"}, "--labels"),
    ):
        with pytest.raises(ConfigError, match=f"named by {says}"):
            table_splits([url], [], **options)
    odd = put(tmp_path, "b.parquet", content.rename_columns(["a", "b", "c", "d"]))
    with pytest.raises(ConfigError, match=r"--image COLUMN"):
        table_splits([odd], [])
    with pytest.raises(ConfigError, match=r"--labels COLUMN"):
        table_splits([odd], [], image="a")


def test_tables_of_two_data_sets_are_refused(tmp_path):
    first = put(tmp_path, "a.parquet", table(0))
    other = put(tmp_path, "b.parquet", table(0).rename_columns(["img", "label", "note"]))
    with pytest.raises(ConfigError, match=r"every table .* 'image'"):
        table_splits([first, other], [])


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"<html></html>", "an HTML page"), (b"PAR1" + bytes(40), "a Parquet file"), (b"", "empty")],
)
def test_what_is_no_table_is_called_what_it_is(tmp_path, content, says):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=f"got {says}|got an {says}"):
        table_splits([str(tmp_path / "a.parquet")], [])


def test_a_data_set_saved_by_datasets_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES)}
    )
    rows = {
        "picture": [{"bytes": png(at), "path": None} for at in range(9)],
        "kind": [at % 3 for at in range(9)],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    made.to_parquet(str(tmp_path / "made.parquet"))
    arrow = sorted(str(path) for path in (tmp_path / "saved").glob("*.arrow"))
    for urls in (arrow, [str(tmp_path / "made.parquet")]):
        found = table_splits(urls, [])
        assert found.numbering.names == tuple(NAMES)
        assert [(e.label, e.image) for e in found.train] == [(n % 3, png(n)) for n in range(9)]
