"""One layer over disk and S3: whole writes, first writer wins, reads that go on."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.storage import files, s3

PLACES = ["disk", "s3"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    return (
        str(tmp_path / "folder")
        if request.param == "disk"
        else request.getfixturevalue("s3_url") + "/folder"
    )


def test_what_is_written_is_read_back(place):
    url = files.join(place, "a", "b.bin")
    assert not files.exists(url)
    for data in (b"", b"x", os.urandom(3_000_000)):
        assert files.write_bytes(url, data)
        assert files.exists(url)
        assert files.read_bytes(url) == data
        with files.open_input(url) as stream:
            assert stream.size() == len(data)


def test_the_first_writer_wins_where_that_is_asked_for(place):
    url = files.join(place, "claim")
    assert files.write_bytes(url, b"first", if_absent=True)
    assert not files.write_bytes(url, b"second", if_absent=True)
    assert files.read_bytes(url) == b"first"
    assert files.write_bytes(url, b"third")
    assert files.read_bytes(url) == b"third"


def test_of_writers_at_the_same_time_one_wins(place):
    won = []
    barrier = threading.Barrier(4)

    def write(number):
        barrier.wait()
        if files.write_bytes(files.join(place, "race"), b"%d" % number, if_absent=True):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert files.read_bytes(files.join(place, "race")) == b"%d" % won[0]


def _die_writing(url):
    with files.open_output(url) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def test_a_write_that_fails_leaves_nothing_and_keeps_what_was_there(place):
    url = files.join(place, "x.tar")
    for before in (None, b"before"):
        if before is not None:
            files.write_bytes(url, before)
        with pytest.raises(KeyboardInterrupt):
            _die_writing(url)
        assert files.exists(url) == (before is not None)
    assert files.read_bytes(url) == b"before"
    assert files.list_files(place) == [url]


def test_listing_is_sorted_and_of_one_folder(place):
    for name in ("b.tar", "a.tar", "c.txt", "deeper/d.tar", ".hidden.tar"):
        files.write_bytes(files.join(place, name), b"x")
    assert files.list_files(place, ".tar") == [files.join(place, n) for n in ("a.tar", "b.tar")]
    assert files.list_files(files.join(place, "nowhere")) == []


def test_a_large_file_is_written_in_parts_and_whole(place):
    data = os.urandom(2**20) * 20
    url = files.join(place, "large")
    with files.open_output(url) as stream:
        for at in range(20):
            stream.write(data[at * 2**20 : (at + 1) * 2**20])
    assert files.read_bytes(url) == data


def test_reading_moves_about_as_a_file_does(place):
    data = os.urandom(9_000_000)
    url = files.join(place, "moves")
    files.write_bytes(url, data)
    expected = io.BytesIO(data)
    with files.open_input(url) as stream:
        for at, size in (
            (0, 512),
            (512, 5_000_000),
            (100, 10),
            (8_999_990, 100),
            (4_000_000, 600_000),
        ):
            assert (stream.seek(at), expected.seek(at)) == (at, at)
            assert bytes(stream.read(size)) == expected.read(size)
            assert stream.tell() == expected.tell()
        assert bytes(stream.read_at(700, 8_999_500)) == data[8_999_500:]
        assert bytes(stream.read_at(10, 77)) == data[77:87]


def test_parquet_reads_through_it(place):
    table = pa.table({"x": list(range(1000))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    files.write_bytes(files.join(place, "t.parquet"), sink.getvalue().to_pybytes())
    with files.open_input(files.join(place, "t.parquet")) as stream:
        assert pq.read_table(stream).equals(table)


def test_a_file_that_is_not_there_is_said_at_once(place):
    with pytest.raises(FileNotFoundError):
        files.read_bytes(files.join(place, "nothing"))


def test_files_on_disk_can_be_read_by_whom_the_umask_lets(tmp_path):
    files.write_bytes(str(tmp_path / "x"), b"")
    (tmp_path / "y").write_bytes(b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_request_is_tried_again_until_it_succeeds():
    answers = [OSError("curlCode: 7, Couldn't connect"), OSError("AWS Error SLOW_DOWN"), 7]

    def request():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert s3.retrying(request, "x") == 7


KILLED = """
import os, signal, sys
from raygrad.storage import files
with files.open_output(sys.argv[1]) as stream:
    stream.write(bytes(1000))
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="temporary files have names here")
def test_a_writer_that_is_killed_leaves_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "part")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_without_nameless_files_writes_are_whole_as_well(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    url = str(tmp_path / "part")
    assert files.write_bytes(url, b"first", if_absent=True)
    assert not files.write_bytes(url, b"second", if_absent=True)
    assert files.write_bytes(url, b"third")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"third"]
