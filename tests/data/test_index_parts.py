"""The index in a run folder: built from parts of shards, gone on with, and never scanned twice."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.data import index_building, index_parts, small_files
from raygrad.data.index import (
    build_index,
    build_index_files,
    read_index,
    write_index,
)
from raygrad.data.index_building import IndexOptions
from raygrad.data.shard_rows import ShardRows, shard_facts
from raygrad.data.stored_index import StoredIndex
from raygrad.errors import ConfigError, DataError
from tests.data.making import BLOCK, example, examples, jpeg, put, tar

OPTIONS = IndexOptions(0.2, max_reject_share=0.5)


@pytest.fixture
def scans(monkeypatch):
    """The URLs of the shards that are scanned, in turn."""
    found = []
    scan_shard = index_parts.scan_shard

    def noted(url, *args):
        found.append(url.rsplit("/", 1)[-1])
        return scan_shard(url, *args)

    monkeypatch.setattr(index_parts, "scan_shard", noted)
    return found


def shards(tmp_path, num=4, per_shard=6):
    return [
        put(tmp_path, f"s{n}.tar", examples([f"s{n}-{m}" for m in range(per_shard)]))
        for n in range(num)
    ]


def build(folder, train, test=(), options=OPTIONS):
    return build_index_files(str(folder), train, list(test), options, lambda head: head)


def parts_in(folder):
    return sorted(path.name for path in Path(folder, index_parts.FOLDER).iterdir())


def odd_shards(tmp_path):
    """Shards with repeated keys, wrong labels, damage, hidden files, and none that is usable."""
    again = [*examples(["s0-0", "s1-0"]), *example("new", "no class", image=jpeg(5))]
    cut = tar(examples([f"c{n}" for n in range(8)]))[: -4 * BLOCK]
    (tmp_path / "cut.tar").write_bytes(cut)
    return [
        *shards(tmp_path, 2),
        put(tmp_path, "again.tar", [*again, ("._hidden.jpg", b"x")]),
        put(tmp_path, "late.tar", examples(["again/s0-0"])),
        str(tmp_path / "cut.tar"),
        put(tmp_path, "none.tar", [("a.jpg", b"")]),
    ]


@pytest.mark.parametrize(("row_group", "many"), [(4, 1000), (2**16, 1)])
@pytest.mark.parametrize("labels", ["cls", "shard", "table"])
def test_an_index_of_parts_is_the_index_in_memory(tmp_path, labels, row_group, many, monkeypatch):
    """Rows, shards, rejects, classes, notes and digest, built at once and from parts that stay.

    Whether its parts are read one by one, or several together as those of very many shards are.
    """
    monkeypatch.setattr("raygrad.data.index._ROW_GROUP", row_group)
    monkeypatch.setattr(small_files, "MANY", many)
    train, test = odd_shards(tmp_path), [put(tmp_path, "t.tar", examples(["t0", "s0-1"]))]
    if labels == "table":
        labels = str(tmp_path / "labels.csv")
        keys = [f"s{n}-{m}" for n in range(2) for m in range(6)]
        Path(labels).write_text("key,label\n" + "".join(f"{key},{key[:2]}\n" for key in keys))
    options = replace(OPTIONS, labels=labels, max_reject_share=0.9)
    wanted = build_index(train, test, **vars(options))
    data = tmp_path / "run" / "data"
    for _ in range(2):
        head = build(data, train, test, options)
        found = read_index(str(data))
        for name in ("examples", "shards", "rejects"):
            assert getattr(found, name).equals(getattr(wanted, name)), name
        assert found.examples.schema.equals(wanted.examples.schema, check_metadata=True)
        assert (head.classes, head.notes) == (wanted.classes, wanted.notes)
        assert (found.classes, head.num_examples) == (wanted.classes, wanted.examples.num_rows)
        with StoredIndex(str(data)) as stored:
            assert stored.digest() == wanted.digest
            assert stored.num_examples == wanted.examples.num_rows
            for split, counts in stored.labels().items():
                labels_of = wanted.rows(split)["label"].to_pylist()
                assert counts == {label: labels_of.count(label) for label in set(labels_of)}
        facts = shard_facts(str(data), "train")
        assert {name: num for name, (num, _) in facts.items()} == wanted.counts("train")
        rows = ShardRows(str(data)).load("s1").examples
        assert (
            rows.to_pylist()
            == wanted.examples.filter(pa.compute.equal(wanted.examples["shard"], "s1")).to_pylist()
        )


def test_an_index_that_was_stopped_goes_on_where_it_was(tmp_path, scans):
    """Nothing of the index is there meanwhile, and no shard is scanned twice."""
    urls, data = shards(tmp_path), tmp_path / "data"

    def stopping(function, items):
        for at, item in enumerate(items):
            if at == 2:
                raise KeyboardInterrupt
            yield function(item)

    with pytest.raises(KeyboardInterrupt):
        build(data, urls, options=replace(OPTIONS, map_fn=stopping))
    assert [path.name for path in data.iterdir()] == [index_parts.FOLDER]
    build(data, urls)
    assert scans == ["s0.tar", "s1.tar", "s2.tar", "s3.tar"]
    assert read_index(str(data)).examples.equals(build_index(urls, [], **vars(OPTIONS)).examples)


def test_new_shards_are_scanned_alone_and_what_is_left_is_of_these_shards(tmp_path, scans):
    urls, data = shards(tmp_path), tmp_path / "data"
    build(data, urls[:2])
    before = parts_in(data)
    build(data, urls)
    assert scans == ["s0.tar", "s1.tar", "s2.tar", "s3.tar"]
    assert set(before) < set(parts_in(data))
    build(data, urls[:2])
    assert parts_in(data) == before


def test_a_shard_that_changed_is_scanned_again_and_the_others_are_not(tmp_path, scans):
    urls, data = shards(tmp_path), tmp_path / "data"
    build(data, urls)
    scans.clear()
    was = os.stat(urls[1]).st_mtime_ns
    put(tmp_path, "s1.tar", examples([f"n1-{m}" for m in range(6)]))
    os.utime(urls[1], ns=(was + 1, was + 1))  # of the same size, a nanosecond later
    build(data, urls)
    assert scans == ["s1.tar"]
    assert len(parts_in(data)) == 4
    assert "n1-0" in read_index(str(data)).examples["key"].to_pylist()


@pytest.mark.parametrize("other", [{"labels": "folder"}, {"image": "seg.png"}])
def test_shards_that_are_read_otherwise_are_scanned_again(tmp_path, scans, other):
    urls, data = shards(tmp_path, 1), tmp_path / "data"
    build(data, urls)
    with pytest.raises(DataError, match="may be rejected"):  # neither finds a label or an image
        build(data, urls, options=replace(OPTIONS, max_reject_share=0.0, **other))
    assert scans == ["s0.tar", "s0.tar"]


@pytest.mark.parametrize("content", [b"", b"PAR1 is not enough", None])
def test_a_part_that_is_broken_is_made_again(tmp_path, scans, content):
    urls, data = shards(tmp_path, 2), tmp_path / "data"
    build(data, urls)
    wanted = read_index(str(data)).examples
    path = data / index_parts.FOLDER / parts_in(data)[0]
    if content is None:
        pq.write_table(pa.table({"key_hash": [1], "text": ["a"]}), path)
    else:
        path.write_bytes(content)
    build(data, urls)
    assert len(scans) == 3
    assert read_index(str(data)).examples.equals(wanted)


def test_a_compressed_tar_whose_unpacked_one_is_gone_is_unpacked_again(tmp_path):
    import gzip

    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(examples(["a", "b"]))))
    options = replace(OPTIONS, unpack_to=str(tmp_path / "out"))
    data = tmp_path / "data"
    build(data, [str(tmp_path / "a.tar.gz")], options=options)
    wanted = read_index(str(data))
    (tmp_path / "out" / "a.tar").unlink()
    build(data, [str(tmp_path / "a.tar.gz")], options=options)
    assert (tmp_path / "out" / "a.tar").exists()
    assert read_index(str(data)).shards.equals(wanted.shards)


def test_a_run_folder_that_nodes_do_not_share_is_named(tmp_path):
    """The part that another node wrote is not there: one line, and no index."""
    data = tmp_path / "data"

    def elsewhere(function, items):
        for item in items:
            yield function(item)
            os.unlink(item.part)

    with pytest.raises(ConfigError, match="the same on all nodes"):
        build(data, shards(tmp_path), options=replace(OPTIONS, map_fn=elsewhere))
    assert not (data / "index.parquet").exists()


def test_shards_whose_versions_nobody_tells_are_scanned_each_time(tmp_path, scans, monkeypatch):
    """As on a web server: what is of the same name may be another file."""
    urls, data = shards(tmp_path, 2), tmp_path / "data"
    monkeypatch.setattr(index_parts.files, "states", lambda urls: {})
    build(data, urls)
    put(tmp_path, "s1.tar", examples([f"n1-{m}" for m in range(6)]))
    build(data, urls)
    assert scans == ["s0.tar", "s1.tar"] * 2
    assert len(parts_in(data)) == 2
    assert "n1-0" in read_index(str(data)).examples["key"].to_pylist()


def test_what_is_refused_at_the_end_leaves_no_index(tmp_path):
    def refuse(head):
        raise DataError("no")

    with pytest.raises(DataError):
        build_index_files(str(tmp_path / "d"), shards(tmp_path), [], OPTIONS, refuse)
    assert [path.name for path in (tmp_path / "d").iterdir()] == [index_parts.FOLDER]


def test_an_index_of_an_older_raygrad_opens_and_goes_on(tmp_path, scans):
    """Without parts, and without the column of what was named: as it was written then."""
    urls, data = shards(tmp_path), tmp_path / "data"
    index = build_index(urls[:3], [], **vars(OPTIONS))
    write_index(str(data), index)
    scans.clear()
    old = pq.read_table(data / "shards.parquet").drop_columns(["source"])
    pq.write_table(old, data / "shards.parquet")
    assert read_index(str(data)).examples.equals(index.examples)
    with StoredIndex(str(data)) as stored:
        assert stored.digest() == index.digest
    build(data, urls)
    assert scans == ["s0.tar", "s1.tar", "s2.tar", "s3.tar"]
    assert read_index(str(data)).examples.equals(build_index(urls, [], **vars(OPTIONS)).examples)


def test_a_scan_without_its_rows_holds_none_of_their_buffers(tmp_path):
    task = index_parts.Task(shards(tmp_path, 1)[0], "s0", True, index_parts.LabelRule(), "", None)
    assert index_parts.scanned(task).scan.examples.get_total_buffer_size() < 64


def test_of_very_many_shards_it_is_told_how_many_are_scanned_and_written(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(index_building, "_MANY", 4)
    with caplog.at_level("INFO", "raygrad"):
        build(tmp_path / "few", shards(tmp_path, num=3))
        assert not caplog.records
        build(tmp_path / "many", shards(tmp_path, num=4))
    assert "prepare: 4 of 4 shards, " in caplog.text
    assert "prepare: 4 of 4 shards written, " in caplog.text
