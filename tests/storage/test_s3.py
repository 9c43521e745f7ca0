"""Reading S3: the same bytes as on disk, also when connections drop or the server dies."""

import io
import os
import threading

import numpy as np
import pytest

from raygrad.errors import ConfigError, IncompleteError
from raygrad.storage import files, s3


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).bytes(3_000_001)


@pytest.fixture
def object_url(s3_url, content):
    url = f"{s3_url}/object"
    files.write_bytes(url, content)
    return url


class CountedGets:
    """Stands in for `s3._get`; counts requests and bytes, and breaks the first streams."""

    def __init__(self, break_after=()):
        self.real, self.ranges, self.breaks = s3._get, [], list(break_after)

    def __call__(self, url, start, end, etag):
        self.ranges.append((start, end))
        body = self.real(url, start, end, etag)
        return BreakingBody(body, self.breaks.pop(0)) if self.breaks else body


class BreakingBody:
    """Gives some bytes, then the error or the early end of a dropped connection."""

    def __init__(self, body, num_bytes):
        self.body, self.left = body, num_bytes

    def read(self, size=-1):
        if self.left == 0:
            raise ConnectionResetError("peer reset")
        data = self.body.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data

    def close(self):
        self.body.close()


def test_any_sequence_of_seeks_and_reads_equals_a_local_file(object_url, content):
    """Random seeks, skips and reads, near and far, small and large, against BytesIO."""
    rng = np.random.default_rng(1)
    file, oracle = s3.S3File(object_url), io.BytesIO(content)
    for _ in range(120):
        if rng.random() < 0.5:
            near = oracle.tell() + int(rng.integers(-3_000, 200_000))
            far = int(rng.integers(0, len(content) + 100))
            position = max(0, near if rng.random() < 0.7 else far)
            file.seek(position)
            oracle.seek(position)
        size = int(10 ** rng.uniform(0, 6))
        assert file.read(size) == oracle.read(size)
        assert file.tell() == oracle.tell()
    file.seek(-10, io.SEEK_END)
    assert file.read() == content[-10:]


def test_a_stream_that_breaks_goes_on_at_its_byte(object_url, content, monkeypatch):
    """Breaks at several places, also before the first byte, lose and repeat nothing."""
    gets = CountedGets(break_after=[0, 1, 70_000, 299_999, 0])
    monkeypatch.setattr(s3, "_get", gets)
    file = s3.S3File(object_url)
    assert b"".join(iter(lambda: file.read(10_007), b"")) == content
    assert not gets.breaks


def test_reading_through_takes_few_requests_and_no_byte_twice(object_url, content, monkeypatch):
    """Windows grow: a sequential read is a handful of requests and moves no byte twice."""
    gets = CountedGets()
    monkeypatch.setattr(s3, "_get", gets)
    file = s3.S3File(object_url)
    while file.read(512):
        file.seek(5_000, io.SEEK_CUR)
    assert len(gets.ranges) <= 5
    assert sum(end - start for start, end in gets.ranges) <= len(content)


def test_a_range_is_exactly_its_bytes(object_url, content, tmp_path):
    """`read_range` equals a slice on S3 and on disk; beyond the end is an error, not less data."""
    local = str(tmp_path / "object")
    files.write_bytes(local, content)
    for url in (object_url, local):
        assert files.file_size(url) == len(content)
        for offset, size in ((0, 1), (17, 0), (1_000_000, 99_999), (len(content) - 5, 5)):
            assert files.read_range(url, offset, size) == content[offset : offset + size]
        for offset in (len(content) - 5, len(content) + 5):
            with pytest.raises(IncompleteError, match="must not change"):
                files.read_range(url, offset, 10)


def test_a_broken_range_is_asked_again(object_url, content, monkeypatch):
    """A range whose stream is reset is whole in the end."""
    monkeypatch.setattr(s3, "_get", CountedGets(break_after=[0, 0]))
    assert files.read_range(object_url, 5, 1_000) == content[5:1_005]


class CountedClient:
    """Stands in for a client; counts what is asked for, and breaks the first answers."""

    def __init__(self, break_after=()):
        self.real, self.asked, self.breaks = s3.client(), [], list(break_after)

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self.real, name)

    def get_object(self, **request):
        self.asked.append("get_object")
        answer = self.real.get_object(**request)
        if self.breaks:
            answer["Body"] = BreakingBody(answer["Body"], self.breaks.pop(0))
        return answer


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_small_object_takes_one_request_and_another_where_it_breaks(
    s3_url, content, monkeypatch, size
):
    files.write_bytes(f"{s3_url}/small", content[:size])
    client = CountedClient()
    monkeypatch.setattr(s3, "client", lambda: client)
    assert files.read_bytes(f"{s3_url}/small") == content[:size]
    assert client.asked == ["get_object"]
    client.breaks = [0, 0]
    assert files.read_bytes(f"{s3_url}/small") == content[:size]
    assert client.asked == ["get_object"] * 4
    with pytest.raises(FileNotFoundError):
        files.read_bytes(f"{s3_url}/none")


def test_a_large_object_is_read_on_where_it_breaks(object_url, content, monkeypatch):
    monkeypatch.setattr(files, "_SMALL", 1_000_000)
    gets = CountedGets(break_after=[70_000, 0])
    monkeypatch.setattr(s3, "_get", gets)
    assert files.read_bytes(object_url) == content
    assert not gets.breaks


def test_an_object_replaced_while_it_is_read_is_an_error(object_url, content):
    """Bytes of two versions are never mixed."""
    file = s3.S3File(object_url)
    file.read(10)
    files.write_bytes(object_url, content[::-1])
    with pytest.raises(IncompleteError, match="must not change while it is read"):
        file.read()


def test_what_is_missing_or_refused_is_said_at_once(s3_url, object_url, monkeypatch):
    """No retries where they cannot help."""
    with pytest.raises(FileNotFoundError):
        files.open_input(f"{s3_url}/none")
    with pytest.raises(FileNotFoundError):
        files.read_range(f"{s3_url}/none", 0, 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(ConfigError, match="Check the credentials"):
        files.open_input(object_url)


def test_a_server_that_stays_away_is_a_clear_error(object_url, monkeypatch):
    """The read is given up after the stated time, with the URL in the text."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(IncompleteError, match=r"must answer within 0.2 s.*object"):
        s3.S3File(object_url, retry_s=0.2)


def test_a_server_killed_and_started_in_the_middle_of_a_read(s3_env, object_url, content):
    """The read waits and ends with every byte."""
    file = s3.S3File(object_url)
    first = b"".join(file.read(10_000) for _ in range(30))
    s3_env.kill()
    restart = threading.Thread(target=s3_env.start)
    restart.start()
    try:
        assert first + file.read() == content
    finally:
        restart.join()


def test_files_on_s3_behave_as_on_disk(s3_url, tmp_path):
    """Write, replace, list, read and exists agree on both."""
    listings = []
    for folder in (s3_url, str(tmp_path / "folder")):
        assert files.list_files(folder) == []
        for name, data in (("b.json", b"1"), ("a.json", b""), ("a.tar", b"2"), ("a.tar", b"33")):
            files.write_bytes(files.join(folder, name), data)
        names = [os.path.basename(url) for url in files.list_files(folder, ".json")]
        listings.append(names)
        assert files.read_bytes(files.join(folder, "a.tar")) == b"33"
        assert files.read_bytes(files.join(folder, "a.json")) == b""
        assert files.exists(files.join(folder, "a.tar"))
        assert not files.exists(files.join(folder, "c.tar"))
    assert listings == [["a.json", "b.json"]] * 2
