"""A list of parts saves the reading of their footers, and is never believed against the folder."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.runs import part_list, score_table
from raygrad.storage import files

PROVENANCE = {"network": "net", "columns": "loss"}
SHARDS = [f"own-{at:03d}" for at in range(5)]


def write(url, shard, values=(0.5, 1.5), **more):
    table = pa.table({"key": [f"{shard}-{at}" for at in range(len(values))], "loss": values})
    score_table.write_part(url, shard, table, PROVENANCE, 2.0, rows_digest="d" + shard, **more)


@pytest.fixture(params=["disk", "s3"])
def url(request, tmp_path):
    """A folder with five parts, one with a reject and one with a NaN, and the list of them."""
    folder = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3_url")
    reject = {"shard": SHARDS[1], "key": "x", "reason": "an image must be whole"}
    for shard in SHARDS:
        write(
            folder,
            shard,
            (float("nan"), 1.0) if shard == SHARDS[2] else (0.5, 1.5),
            rejects=[reject] if shard == SHARDS[1] else (),
            computed_by={"device": "a processor"},
        )
    part_list.write_part_list(folder, PROVENANCE, score_table.finished_parts(folder, PROVENANCE))
    return folder


@pytest.fixture
def asked(monkeypatch):
    """The parts whose footers are read."""
    found, real = [], score_table._facts

    def watched(part, provenance):
        found.append(part.rsplit("/", 1)[-1])
        return real(part, provenance)

    monkeypatch.setattr(score_table, "_facts", watched)
    return found


def test_listed_parts_are_what_their_footers_say_and_no_footer_is_read(url, asked):
    listed = score_table.finished_parts(url, PROVENANCE)
    assert asked == []
    files.remove(files.join(url, part_list.PARTS))
    assert score_table.finished_parts(url, PROVENANCE) == listed
    assert len(asked) == len(listed) == 5
    assert listed[SHARDS[1]].rejects[0]["key"] == "x"
    assert listed[SHARDS[2]].not_finite == {"loss": 1}


def test_a_part_that_is_new_or_written_again_or_gone_is_not_taken_from_the_list(url, asked):
    write(url, "own-new")
    write(url, SHARDS[0], (9.0, 9.0, 9.0))
    files.remove(score_table.part_url(url, SHARDS[4]))
    found = score_table.finished_parts(url, PROVENANCE)
    assert sorted(asked) == sorted(f"part-{one}.parquet" for one in ("own-new", SHARDS[0]))
    assert found[SHARDS[0]].num_used == 3
    assert sorted(found) == [*SHARDS[:4], "own-new"]


def test_a_list_of_another_provenance_or_a_broken_one_is_not_believed(url, asked):
    with pytest.raises(ConfigError, match="one provenance, got another network"):
        score_table.finished_parts(url, {**PROVENANCE, "network": "other"})
    asked.clear()
    files.write_bytes(files.join(url, part_list.PARTS), b"no Parquet")
    assert len(score_table.finished_parts(url, PROVENANCE)) == len(asked) == 5


def test_a_complete_table_is_read_without_its_footers_and_says_what_is_wrong(tmp_path, asked):
    folder = str(tmp_path)
    for shard in SHARDS:
        write(folder, shard)
    part_list.write_part_list(folder, PROVENANCE, score_table.finished_parts(folder, PROVENANCE))
    asked.clear()
    score_table.write_manifest(folder, SHARDS, PROVENANCE, 1.0)
    assert len(score_table.table_parts(folder)) == 5
    assert asked == []
    os.truncate(tmp_path / f"part-{SHARDS[3]}.parquet", 20)
    with pytest.raises(DataError, match="a part must be a whole Parquet file"):
        score_table.table_parts(folder)


def test_no_row_of_a_table_takes_a_python_object_in_the_list(tmp_path):
    """A row a part, whatever the parts hold."""
    write(str(tmp_path), SHARDS[0], tuple(float(at) for at in range(1000)))
    found = score_table.finished_parts(str(tmp_path), PROVENANCE)
    part_list.write_part_list(str(tmp_path), PROVENANCE, found)
    assert pq.read_metadata(tmp_path / part_list.PARTS).num_rows == 1
