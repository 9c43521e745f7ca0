"""A table that cannot be written, or was changed from outside, is one clear error; nothing is lost.

The read-only folder is the kernel's own `/sys`, which refuses root too; the read-only bucket is a
real S3 server's, with an identity that may read and list.
"""

import shutil
import sys
import time

import pyarrow.parquet as pq
import pytest

from raygrad.cli import command as cli
from raygrad.engine.score import job as score_engine
from raygrad.engine.score.actor import OutputError, ShardWork
from raygrad.engine.score.job import score
from raygrad.errors import ConfigError, DataError, IncompleteError
from raygrad.runs import score_table
from raygrad.storage import files
from tests.engine.score.scoring_cases import make_config, make_shards, make_task
from tests.engine.score.test_command import line
from tests.storage import s3_server

BOUND_S = 20
READ_ONLY = "/sys/raygrad-run"


def quiet(count, rejected=0):
    """Progress that nobody watches."""


def truncate(part, other):
    part.write_bytes(part.read_bytes()[:-20])


def empty(part, other):
    part.write_bytes(b"")


def replace_by_anothers(part, other):
    shutil.copy(other, part)


def rewrite_plainly(part, other):
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)


def drop_rows(part, other):
    pq.write_table(pq.read_table(part).slice(0, 5), part)


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (truncate, "a part must be a whole Parquet file"),
        (empty, "a part must be a whole Parquet file"),
        (replace_by_anothers, "a part must be of the shard as it is indexed"),
        (rewrite_plainly, "all parts of a score table must have one provenance"),
        (drop_rows, "a part must hold its shard's 12 examples, got 5"),
    ],
)
def test_a_part_that_was_changed_from_outside_is_named_before_any_work(tmp_path, harm, text):
    task = make_task(tmp_path, make_shards(tmp_path, 2))
    work = ShardWork(task)
    for shard in ("own-000", "own-001"):
        work.score(shard, quiet)
    scores = tmp_path / "scores"
    harm(scores / "part-own-001.parquet", scores / "part-own-000.parquet")
    with pytest.raises((ConfigError, DataError), match=text) as caught:
        score(make_config(), task)
    assert "part-own-001.parquet" in str(caught.value)
    assert not (scores / "_manifest.json").exists()


def test_shards_that_nobody_told_of_are_lacking_and_no_accident(tmp_path, ray_session, monkeypatch):
    """A pool that ends without a word is an incomplete job."""
    monkeypatch.setattr(score_engine, "pool_statuses", lambda *args: (_ for _ in ()))
    task = make_task(tmp_path, make_shards(tmp_path, 1))
    with pytest.raises(IncompleteError, match=r"must have its part, got none for \['own-000'\]"):
        score(make_config(), task)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that the kernel keeps")
def test_a_read_only_folder_is_said_before_any_work(tmp_path, capsys):
    make_shards(tmp_path, 1)
    start_s = time.monotonic()
    assert cli.main(line(tmp_path, "--run", READ_ONLY)) == 2
    assert time.monotonic() - start_s < BOUND_S
    assert "run folder must be writable, got [Errno" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that the kernel keeps")
def test_a_folder_that_has_become_read_only_is_no_failure_of_a_shard(tmp_path):
    """An actor that may not write says so, instead of trying every shard three times."""
    task = make_task(tmp_path, make_shards(tmp_path, 1), out_url=f"{READ_ONLY}/scores")
    with pytest.raises(ConfigError, match=r"the output must be writable"):
        score(make_config(), task)
    with pytest.raises(OutputError, match="the output must be writable"):
        ShardWork(task).score("own-000", quiet)


@pytest.fixture
def reader(s3_env, monkeypatch):
    """From here on only reading and listing are allowed."""

    def become() -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.READER_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.READER_SECRET)

    return become


def test_a_bucket_without_the_right_to_write_is_said_before_any_work(
    tmp_path,
    s3_url,
    reader,
    capsys,
):
    make_shards(tmp_path, 1)
    reader()
    start_s = time.monotonic()
    assert cli.main(line(tmp_path, "--run", f"{s3_url}/run")) == 2
    assert time.monotonic() - start_s < BOUND_S
    error = capsys.readouterr().err
    assert "storage must accept the request" in error
    assert "AccessDenied" in error
    assert files.list_files(f"{s3_url}/run") == []


def test_rights_that_go_away_end_the_job_and_keep_what_is_there(tmp_path, s3_url, reader):
    task = make_task(tmp_path, make_shards(tmp_path, 2), out_url=f"{s3_url}/scores")
    score_table.bind_table(task.out_url, task.provenance)
    work = ShardWork(task)
    work.score("own-000", quiet)
    part = score_table.part_url(task.out_url, "own-000")
    was = files.read_bytes(part)
    reader()
    start_s = time.monotonic()
    with pytest.raises(OutputError, match=r"must be writable.*AccessDenied.*for own-001"):
        work.score("own-001", quiet)
    with pytest.raises(ConfigError, match="AccessDenied"):
        score(make_config(), task)
    assert time.monotonic() - start_s < BOUND_S
    assert files.list_files(task.out_url, ".parquet") == [part]
    assert files.read_bytes(part) == was
