"""A table of many parts is read from one file, which is never believed against the folder."""

import hashlib
import json
import os

import pyarrow as pa
import pytest

from raygrad.data import small_files
from raygrad.errors import ConfigError
from raygrad.runs import gathered_rows, score_table
from raygrad.runs.subsets import draw_subset, read_subset
from raygrad.storage import files

PROVENANCE = {"network": "net", "columns": "loss"}
SHARDS = [f"own-{at:03d}" for at in range(20)]


def write(url, shard, at=0):
    """Writes a part; the first has no row."""
    num = 0 if shard == SHARDS[0] else 5
    table = pa.table(
        {
            "key": pa.array([f"{shard}-{n}" for n in range(num)], pa.string()),
            "shard": pa.array([shard] * num, pa.string()),
            "label": pa.array([n % 3 for n in range(num)], pa.int64()),
            "loss": pa.array(
                [(37 * int(shard[4:]) + 11 * n) % 7 / 4 + at for n in range(num)], pa.float64()
            ),
        }
    )
    score_table.write_part(url, shard, table, PROVENANCE, 2.0, rows_digest="d")


@pytest.fixture(params=["disk", "s3"])
def url(request, tmp_path, monkeypatch):
    """A complete table of 20 parts, not gathered."""
    monkeypatch.setattr(gathered_rows, "MIN_PARTS", 20)
    monkeypatch.setattr(gathered_rows, "_ROW_GROUP", 16)
    folder = (
        str(tmp_path / "scores") if request.param == "disk" else request.getfixturevalue("s3_url")
    )
    for shard in SHARDS:
        write(folder, shard)
    score_table.write_manifest(folder, SHARDS, PROVENANCE, 1.0)
    return folder


def drawn(url, tmp_path, method):
    out = str(tmp_path / "subset.parquet")
    draw_subset(url, out, method, 0.3, 1, {}, score_column="loss")
    return read_subset(out)[0]


@pytest.mark.parametrize("method", ["max_gradient", "gradient_cdf", "random"])
def test_gathered_rows_are_those_of_the_parts_and_so_is_what_is_drawn_of_them(
    url, tmp_path, method
):
    before, subset = score_table.read_score_table(url), drawn(url, tmp_path, method)
    some = score_table.read_score_table(url, ["loss", "key"])
    assert len(score_table.row_files(url)) == 20
    score_table.gather(url)
    assert [one.rsplit("/", 1)[-1] for one in score_table.row_files(url)] == [gathered_rows.ROWS]
    assert score_table.read_score_table(url).equals(before)
    assert score_table.read_score_table(url, ["loss", "key"]).equals(some)
    assert drawn(url, tmp_path, method).equals(subset)
    assert len(score_table.finished_parts(url, PROVENANCE)) == 20


@pytest.mark.parametrize("files_each", [1, 3, 32])
def test_rows_that_tasks_gather_are_those_that_are_gathered_here(url, monkeypatch, files_each):
    """Whoever reads the parts, and however many each; what is known of them is not asked again."""
    score_table.gather(url)
    rows = files.join(url, gathered_rows.ROWS)
    wanted = files.read_bytes(rows)
    files.remove(rows)
    states, facts = score_table.files_of(url), score_table.finished_parts(url, PROVENANCE)
    monkeypatch.setattr(small_files, "MANY", 20)
    monkeypatch.setattr(small_files, "_LEAST", 1)
    monkeypatch.setattr(small_files, "_FILES", files_each)
    monkeypatch.setattr(score_table, "_facts_of", pytest.fail)
    monkeypatch.setattr(score_table, "files_of", pytest.fail)
    tasks = []

    def mapped(function, items):
        return (function(item) for item in items if tasks.append(item) is None)

    score_table.gather(url, states, facts, mapped)
    assert [len(one) for one in tasks[:-1]] == [files_each] * (len(tasks) - 1)
    assert sum(map(len, tasks)) == 20
    assert files.read_bytes(rows) == wanted


def changed(url):
    write(url, SHARDS[3], at=1)


def more(url):
    write(url, "own-099")
    score_table.write_manifest(url, [*SHARDS, "own-099"], PROVENANCE, 1.0)


def broken(url):
    files.write_bytes(files.join(url, gathered_rows.ROWS), b"PAR1")


@pytest.mark.parametrize("change", [changed, more, broken])
def test_rows_that_are_not_of_these_parts_are_not_read(url, change):
    """A part that was written again, one that is new, a file that is broken; then gathered anew."""
    score_table.gather(url)
    change(url)
    files_before = score_table.row_files(url)
    assert gathered_rows.ROWS not in {one.rsplit("/", 1)[-1] for one in files_before}
    wanted = score_table.read_score_table(url)
    score_table.gather(url)
    assert len(score_table.row_files(url)) == 1
    assert score_table.read_score_table(url).equals(wanted)


def test_a_part_that_is_gone_is_missed_though_its_rows_are_gathered(url):
    score_table.gather(url)
    files.remove(score_table.part_url(url, SHARDS[5]))
    with pytest.raises((ConfigError, FileNotFoundError)):
        score_table.read_score_table(url)


def test_few_parts_are_not_gathered_and_of_many_it_is_told(url, monkeypatch, caplog):
    with caplog.at_level("INFO", "raygrad"):
        monkeypatch.setattr(gathered_rows, "MIN_PARTS", 21)
        score_table.gather(url)
        assert not caplog.records
        assert not files.exists(files.join(url, gathered_rows.ROWS))
        monkeypatch.setattr(gathered_rows, "MIN_PARTS", 20)
        score_table.gather(url)
    assert "score: 20 of 20 parts gathered, " in caplog.text


@pytest.mark.parametrize("many", [2, 1000])
def test_parts_whose_columns_differ_stay_as_they_are(tmp_path, monkeypatch, caplog, many):
    monkeypatch.setattr(gathered_rows, "MIN_PARTS", 2)
    monkeypatch.setattr(small_files, "MANY", many)
    monkeypatch.setattr(small_files, "_LEAST", 1)
    folder = str(tmp_path)
    for at, column in enumerate(("a", "b")):
        rows = pa.table({"key": ["x"], column: [0.5]})
        score_table.write_part(folder, f"own-{at}", rows, PROVENANCE, 1.0, rows_digest="d")
    score_table.write_manifest(folder, ["own-0", "own-1"], PROVENANCE, 1.0)
    score_table.gather(folder)
    assert "read one by one" in caplog.text
    assert gathered_rows.ROWS not in os.listdir(folder)


def test_the_digest_of_the_parts_is_that_of_tables_gathered_before():
    """It was made of lists by `json.dumps`: a table of then is not gathered again."""
    names = ["part-a.parquet", 'part-\u00e4"\\\n.parquet', "part-gone.parquet"]
    states = {names[0]: (12, "1790000000"), names[1]: (0, '"etag-\u20ac"')}
    text = json.dumps([[name, *states.get(name, ())] for name in names])
    before = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    assert gathered_rows._digest(names, states) == before
