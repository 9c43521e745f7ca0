"""Ranges of one version of an object: whole, of one version, told apart from those of another."""

import io

import pytest
from botocore.exceptions import ClientError

from raygrad.errors import IncompleteError
from raygrad.storage import s3, s3_versions
from raygrad.storage.s3_versions import OneVersion

DATA = bytes(range(256)) * 4


class Answers:
    """Stands in for a client: an object, as servers of several kinds answer for it."""

    def __init__(self, data=DATA, etag='"1"', knows_ranges=True, breaks=0):
        self.data, self.etag, self.knows_ranges, self.breaks = data, etag, knows_ranges, breaks
        self.asked = []

    def head_object(self, **request):
        return {"ContentLength": len(self.data), "ETag": self.etag}

    def get_object(self, **request):
        asked_for = request.get("IfMatch")
        self.asked.append(asked_for)
        if asked_for not in (None, self.etag):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "GetObject")
        start, end = (int(part) for part in request["Range"].removeprefix("bytes=").split("-"))
        if start >= len(self.data):
            raise ClientError({"Error": {"Code": "InvalidRange"}}, "GetObject")
        answer = {} if self.etag is None else {"ETag": self.etag}
        if self.breaks:
            self.breaks -= 1
            return answer | {"Body": Broken()}
        if not self.knows_ranges:
            return answer | {"Body": io.BytesIO(self.data)}
        told = f"bytes {start}-{min(end + 1, len(self.data)) - 1}/{len(self.data)}"
        part = io.BytesIO(self.data[start : end + 1])
        return answer | {"Body": part, "ContentRange": told}


class Broken(io.BytesIO):
    """A body whose connection is reset."""

    def read(self, size=-1):
        raise ConnectionResetError


def opened(monkeypatch, answers):
    for module in (s3, s3_versions):
        monkeypatch.setattr(module, "client", lambda: answers)
    return OneVersion("s3://bucket/key")


@pytest.mark.parametrize("etag", ['"1"', None])
@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize(("offset", "size"), [(0, 1024), (5, 10), (1000, 90), (1024, 1)])
def test_a_range_is_that_part_and_the_size_is_of_the_whole(
    monkeypatch, etag, knows_ranges, offset, size
):
    """Also at and beyond the end, and of a server that sends all of it or names no versions."""
    answers = Answers(etag=etag, knows_ranges=knows_ranges)
    one = opened(monkeypatch, answers)
    for _ in range(2):
        assert one.read(offset, size) == (DATA[offset : offset + size], len(DATA))
    assert answers.asked == [None, etag]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_server_that_sends_all_of_it_is_not_taken_at_its_word(monkeypatch, knows_ranges):
    opened(monkeypatch, Answers(knows_ranges=knows_ranges))
    assert s3.read_range("s3://bucket/key", 5, 10) == DATA[5:15]
    with s3.S3File("s3://bucket/key") as stream:
        stream.seek(100)
        assert stream.read(50) == DATA[100:150]
        stream.seek(7)
        assert stream.read() == DATA[7:]


def test_a_range_whose_connection_breaks_is_asked_for_again(monkeypatch):
    answers = Answers(breaks=2)
    assert opened(monkeypatch, answers).read(3, 4) == (DATA[3:7], len(DATA))
    assert len(answers.asked) == 3


@pytest.mark.parametrize("heeds_if_match", [True, False])
def test_another_version_is_an_error(monkeypatch, heeds_if_match):
    """Refused by the server, or seen by its name."""
    answers = Answers()
    one = opened(monkeypatch, answers)
    one.read(0, 10)
    answers.etag = '"2"'
    if not heeds_if_match:
        get = answers.get_object
        answers.get_object = lambda **request: get(**request | {"IfMatch": None})
    with pytest.raises(IncompleteError, match="must not change while it is read"):
        one.read(10, 10)


def test_an_answer_that_lacks_bytes_is_an_error(monkeypatch):
    answers = Answers()
    get = answers.get_object
    answers.get_object = lambda **request: get(**request) | {"Body": io.BytesIO(b"abc")}
    with pytest.raises(IncompleteError, match="got 3 of 10 bytes at 7"):
        opened(monkeypatch, answers).read(7, 10)
