"""Public buckets are read unsigned and requester-pays buckets with consent: seen on the wire."""

import http.server
import threading
from typing import ClassVar

import pytest

from raygrad.data.index import build_index
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.urls import expand
from tests.data.making import examples, tar

KEYS = [f"{n:03d}" for n in range(20)]
DATA = tar(examples(KEYS))


class Handler(http.server.BaseHTTPRequestHandler):
    """A bucket that refuses who signs (as a wrong key does) or who does not agree to pay."""

    seen: ClassVar[list] = []
    rule: ClassVar[dict] = {"pays": False}

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        signed = "Authorization" in self.headers
        pays = self.headers.get("x-amz-request-payer") == "requester"
        self.seen.append((self.command, signed, pays))
        if pays is not self.rule["pays"] or (signed and not pays):
            self.send_error(403)
            return
        if "list-type" in self.path:
            listing = (
                b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>1</KeyCount>'
                b"<IsTruncated>false</IsTruncated><Contents><Key>set/a-0.tar</Key>"
                b"<Size>1</Size></Contents></ListBucketResult>"
            )
            self._answer(200, listing, body)
            return
        asked = self.headers.get("Range")
        if asked:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            self._answer(206, DATA[first : last + 1], body)
        else:
            self._answer(200, DATA, body)

    def _answer(self, status, data, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def bucket(monkeypatch):
    """An endpoint on the loopback; the environment has no credentials."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(Handler, "seen", [])
    monkeypatch.setattr(Handler, "rule", {"pays": False})
    yield server
    server.shutdown()
    server.server_close()


def test_a_public_bucket_is_listed_and_read_without_credentials(bucket, monkeypatch):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert expand("s3://b/set/a-*.tar") == ["s3://b/set/a-0.tar"]
    index = build_index(["s3://b/set/a-0.tar"], [], val_fraction=0.0)
    assert index.examples["key"].to_pylist() == KEYS
    assert Handler.seen
    assert not any(signed or pays for _, signed, pays in Handler.seen)


def test_who_agrees_to_pay_says_so_in_every_request(bucket, monkeypatch):
    monkeypatch.setattr(Handler, "rule", {"pays": True})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    assert expand("s3://b/set/a-*.tar") == ["s3://b/set/a-0.tar"]
    assert files.read_bytes("s3://b/set/a-0.tar") == DATA
    assert files.file_size("s3://b/set/a-0.tar") == len(DATA)
    assert files.read_range("s3://b/set/a-0.tar", 5, 7) == DATA[5:12]
    assert {"HEAD", "GET"} <= {command for command, _, _ in Handler.seen}
    assert all(signed and pays for _, signed, pays in Handler.seen)


def test_a_bucket_that_says_no_names_both_ways(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with pytest.raises(ConfigError, match="AWS_REQUEST_PAYER"):
        files.read_bytes("s3://b/a.tar")


@pytest.mark.parametrize("name", ["AWS_NO_SIGN_REQUEST", "AWS_REQUEST_PAYER"])
def test_a_value_that_is_none_is_refused(bucket, monkeypatch, name):
    monkeypatch.setenv(name, "perhaps")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with pytest.raises(ConfigError, match=f"{name} must be"):
        files.read_bytes("s3://b/a.tar")
