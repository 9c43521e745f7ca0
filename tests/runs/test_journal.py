"""The journal of a run folder: what was started when, and what ended it."""

import subprocess
import sys
import threading
import time

import pytest

from raygrad.errors import DataError
from raygrad.runs import journal
from raygrad.runs.journal import Entry, read_journal, recorded, wall_s
from raygrad.storage import files


def entry(started_s, seconds, stage="train"):
    return Entry(stage, started_s, seconds, "complete", "0", "0")


def test_each_start_is_kept_with_what_ended_it(tmp_path):
    url, began_s = str(tmp_path / "journal"), time.time()
    with recorded(url, "prepare"):
        time.sleep(0.05)
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error), recorded(url, "train-cnn"):
            raise error
    found = read_journal(url)
    assert [(e.stage, e.outcome) for e in found] == [
        ("prepare", "complete"),
        ("train-cnn", "interrupted"),
        ("train-cnn", "failed"),
    ]
    assert began_s - 1 <= found[0].started_s <= time.time()
    assert 0.05 <= found[0].seconds <= time.time() - began_s
    assert len({e.process for e in found}) == 1


def test_what_was_killed_is_known_up_to_its_last_beat(tmp_path):
    """SIGKILL, after the file was written again at least once."""
    code = (
        "import os, signal, sys, time; from raygrad.runs import journal; journal.BEAT_S = 0.1\n"
        "with journal.recorded(sys.argv[1], 'sweep'):\n"
        "    time.sleep(0.7); os.kill(os.getpid(), signal.SIGKILL)"
    )
    began_s = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    took_s = time.monotonic() - began_s
    assert ended.returncode == -9
    (found,) = read_journal(str(tmp_path))
    assert found.outcome == "running"
    assert 0.1 <= found.seconds <= took_s  # a busy machine sleeps for longer than it is told


def test_wall_time_counts_what_ran_at_the_same_time_once():
    assert wall_s([]) == 0
    assert wall_s([entry(100, 10), entry(200, 5)]) == 15
    assert wall_s([entry(105, 10), entry(100, 10), entry(101, 2)]) == 15


def test_a_journal_that_cannot_be_written_costs_no_work_and_is_said_once(
    tmp_path, monkeypatch, caplog
):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "write_bytes", fail)
    done = []
    with recorded(str(tmp_path), "train"):
        done.append(1)
    assert done == [1]
    assert read_journal(str(tmp_path)) == []
    assert [r.message.endswith("no space left on device") for r in caplog.records] == [True]


def test_a_store_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(journal, "PATIENCE_S", 0.1)
    monkeypatch.setattr(files, "write_bytes", lambda *_: answers.wait(60))
    began_s = time.monotonic()
    with recorded(str(tmp_path), "train"):
        pass
    assert time.monotonic() - began_s < 10
    answers.set()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"must hold entries alone, got .*x\.json"):
        read_journal(str(tmp_path))


def test_a_run_of_before_there_was_a_journal_has_none(tmp_path):
    assert read_journal(str(tmp_path / "journal")) == []


def test_a_fork_of_a_process_that_has_a_name_has_another(tmp_path):
    """As where one process is kept ready that has loaded all, and commands are its forks."""
    code = (
        "import os, sys; from raygrad.runs.journal import recorded\n"
        "def work():\n"
        "    with recorded(sys.argv[1], 'train'): pass\n"
        "work(); work()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0: work(); os._exit(0)\n"
        "    os.wait()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    names = [entry.process for entry in read_journal(str(tmp_path))]
    assert len(names) == 4
    assert len(set(names)) == 3
