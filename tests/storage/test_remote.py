"""Files on web servers, gs:// and hf://: the bytes asked for, or a line that says why not."""

import http.server
import importlib
import io
import tarfile
import threading
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raygrad.data.index import build_index
from raygrad.data.places import TableOptions, resolve
from raygrad.data.reading import read_rows
from raygrad.data.sources import HeldOut
from raygrad.errors import ConfigError, IncompleteError
from raygrad.storage import files, remote
from raygrad.storage.urls import expand

DATA = bytes(range(256)) * 4000


def tar(keys):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for key in keys:
            for name, data in ((f"{key}.jpg", key.encode() * 2000), (f"{key}.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for ranges, as web servers and the Hub do; some paths answer otherwise."""

    content: ClassVar[dict] = {}
    failures: ClassVar[list] = []

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.split("?")[0]
        if self.failures and body:
            self.send_error(self.failures.pop())
            return
        if path.startswith("/private/"):
            self.send_error(403)
            return
        data = self.content.get(path)
        if data is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        if asked and not path.startswith("/plain/"):
            first, last = asked.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            part = data
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    """A web server on the loopback; its port is free, its thread ends with the module."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


@pytest.fixture
def web(server, monkeypatch):
    monkeypatch.setattr(Handler, "content", {"/a.bin": DATA, "/plain/a.bin": DATA})
    monkeypatch.setattr(Handler, "failures", [])
    return server


@pytest.fixture(params=["gs", "hf"])
def store(request, monkeypatch):
    """A store of fsspec's own, in memory, in the place of one that needs an account."""

    class Store(MemoryFileSystem):
        protocol = request.param
        store: ClassVar[dict] = {}
        pseudo_dirs: ClassVar[list] = [""]

    fsspec.register_implementation(request.param, Store, clobber=True)
    remote._system.cache_clear()
    yield f"{request.param}://bucket"
    remote._system.cache_clear()
    importlib.import_module("fsspec.registry")._registry.pop(request.param)


def put(url, data):
    scheme = url.partition("://")[0]
    with fsspec.filesystem(scheme).open(url, "wb") as stream:
        stream.write(data)


def test_a_page_is_read_in_ranges_and_as_a_file(web):
    url = f"{web}/a.bin"
    assert files.file_size(url) == len(DATA)
    assert files.read_range(url, 100, 50) == DATA[100:150]
    assert files.read_bytes(url) == DATA
    assert files.exists(url)
    assert not files.exists(f"{web}/none")
    with files.open_input(url) as stream:
        for start, size in ((0, 10), (300_000, 20), (5, 5), (300_020, 700_000), (0, 0)):
            stream.seek(start)
            assert stream.read(size) == DATA[start : start + size]


def test_an_index_and_its_images_come_from_a_web_server(web, monkeypatch):
    for number in (0, 1):
        keys = [f"{number}{at}" for at in range(5)]
        monkeypatch.setitem(Handler.content, f"/a-{number}.tar", tar(keys))
    urls = expand(f"{web}/a-{{0..1}}.tar?download=true")
    index = build_index(urls, [], val_fraction=0.0)
    assert index.shards["name"].to_pylist() == ["a-0", "a-1"]
    read = {e.key: e.image for e in read_rows(index, index.examples)}
    assert read == {f"{n}{at}": f"{n}{at}".encode() * 2000 for n in (0, 1) for at in range(5)}


def test_a_server_that_fails_for_a_while_is_asked_again(web, monkeypatch):
    monkeypatch.setattr(Handler, "failures", [503, 500, 429])
    assert files.read_range(f"{web}/a.bin", 7, 9) == DATA[7:16]
    monkeypatch.setattr(remote, "RETRY_S", 0.3)
    monkeypatch.setattr(Handler, "failures", [503] * 20)
    with pytest.raises(IncompleteError, match="must answer within"):
        files.read_range(f"{web}/a.bin", 7, 9)


def test_a_server_that_says_no_or_knows_no_ranges_is_one_line_at_once(web):
    with pytest.raises(ConfigError, match="must accept the request"):
        files.read_range(f"{web}/private/a.bin", 0, 1)
    with pytest.raises(ConfigError, match="range of bytes"):
        files.read_range(f"{web}/plain/a.bin", 5, 10)
    with pytest.raises(FileNotFoundError):
        files.file_size(f"{web}/none")
    with pytest.raises(ConfigError, match=r"got nothing at .*none\.tar"):
        build_index([f"{web}/none.tar"], [], val_fraction=0.0)
    with pytest.raises(ConfigError, match="without \\*"):
        expand(f"{web}/a-*.tar")


def test_a_store_is_listed_and_read_through_fsspec(store):
    for number in (0, 1, 10):
        put(f"{store}/set/train-{number}.tar", tar([f"{number}x{at}" for at in range(3)]))
    put(f"{store}/set/deep/test-0.tar", tar(["t"]))
    urls = expand(f"{store}/set/train-?.tar")
    assert urls == [f"{store}/set/train-{n}.tar" for n in (0, 1)]
    assert expand(f"{store}/*/deep/*.tar") == [f"{store}/set/deep/test-0.tar"]
    index = build_index(urls, [], val_fraction=0.0)
    assert {e.key: e.image for e in read_rows(index, index.examples)} == {
        f"{n}x{at}": f"{n}x{at}".encode() * 2000 for n in (0, 1) for at in range(3)
    }
    found = resolve([f"{store}/set"], [], held_out=HeldOut(), options=TableOptions())
    assert (len(found.train_urls), len(found.test_urls)) == (3, 1)
    with pytest.raises(ConfigError, match="must match a file"):
        expand(f"{store}/none/*.tar")


def test_nothing_is_written_but_to_disk_or_s3(store, web):
    for url in (f"{store}/run/x", f"{web}/x"):
        with pytest.raises(ConfigError, match="must be local or on s3"):
            files.write_bytes(url, b"x")


def test_a_library_that_is_not_there_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("gcsfs is needed")

    remote._system.cache_clear()
    monkeypatch.setattr(remote.fsspec, "filesystem", missing)
    with pytest.raises(ConfigError, match="pip install gcsfs"):
        files.file_size("gs://bucket/a.tar")
    remote._system.cache_clear()


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("file:///data/a.tar", "/data/a.tar"),
        ("file:/data/a.tar", "/data/a.tar"),
        ("S3://bucket/a.tar", "s3://bucket/a.tar"),
        ("s3a://bucket/a.tar", "s3://bucket/a.tar"),
        ("gcs://bucket/a.tar", "gs://bucket/a.tar"),
        ("HTTPS://host/a.tar", "https://host/a.tar"),
        ("data:1/a.tar", "data:1/a.tar"),
        ("a.tar", "a.tar"),
    ],
)
def test_one_place_has_one_url(url, same):
    assert files.checked_url(url) == same


@pytest.mark.parametrize(
    "url", ["pipe:curl -s https://host/a.tar", "ftp://host/a", "az://c/a", "abfs://c/a", "x://a"]
)
def test_every_other_place_is_refused_by_name(url):
    with pytest.raises(ConfigError, match=r"files must be local or s3://.*got .*"):
        files.checked_url(url)
    with pytest.raises(ConfigError, match="must be local or"):
        expand(url)
