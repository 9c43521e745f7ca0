"""Files on web servers, Google Cloud Storage and the Hugging Face Hub, read through fsspec.

They are read in ranges, as S3 is, and never written. A range that a server answers with anything
else is refused: what is not these bytes must not be taken for them.
"""

import asyncio
import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from raygrad.errors import ConfigError, StorageAwayError, StorageRefusedError
from raygrad.storage import patience
from raygrad.storage.seekable import SeekableReader

SCHEMES = ("https", "http", "gs", "hf")
RETRY_S = 120.0
"""How long a request is tried again before it is given up."""

_NEEDED = {"gs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
_FIRST_WINDOW, _MAX_WINDOW = 256 * 2**10, 8 * 2**20
_REFUSED = frozenset((400, 401, 402, 403, 405, 451))
_GONE = frozenset((404, 410))
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_T = TypeVar("_T")


def is_remote(url: str) -> bool:
    """Tells whether a URL is read through fsspec."""
    return url.partition("://")[0] in SCHEMES and "://" in url


def size_of(url: str) -> int:
    """Returns a file's size in bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The server does not say, or refuses.
    """
    size = _info(url).get("size")
    if size is None:
        raise _no_ranges(url, "no size")
    return int(size)


def read_range(url: str, offset: int, size: int) -> bytes:
    """Returns exactly `size` bytes at `offset`.

    Raises:
        ConfigError: The server answers with something else.
        StorageAwayError: It does not answer.
    """
    if size == 0:
        return b""
    data = _retrying(lambda fs: fs.cat_file(url, start=offset, end=offset + size), url)
    if len(data) != size:
        raise _no_ranges(url, f"{len(data)} bytes instead of {size}")
    return bytes(data)


def exists(url: str) -> bool:
    """Tells whether there is a file, or a folder, at a URL."""
    try:
        _info(url)
    except FileNotFoundError:
        return False
    return True


def is_file(url: str) -> bool:
    """Tells whether there is a file at a URL."""
    try:
        return _info(url).get("type", "file") == "file"
    except FileNotFoundError:
        return False


def entries_in(url: str) -> list[tuple[str, bool]]:
    """Returns name and whether it is a folder of all that is right inside a folder; sorted."""
    try:
        found = _retrying(lambda fs: fs.ls(url.rstrip("/"), detail=True), url)
    except FileNotFoundError:
        return []
    return sorted(
        (one["name"].rstrip("/").rsplit("/", 1)[-1], one.get("type") == "directory")
        for one in found
    )


class RemoteFile(SeekableReader):
    """A file as a seekable stream for reading; read on, it asks for more and more at a time."""

    def __init__(self, url: str) -> None:
        super().__init__(size_of(url))
        self._url = url
        self._start = self._window = 0
        self._buffer = b""

    def read(self, size: int | None = -1) -> bytes:
        """Returns `size` bytes, fewer only at the file's end."""
        wanted = self._wanted(size)
        if wanted == 0:
            return b""
        skip = self._position - self._start
        if not (skip >= 0 and skip + wanted <= len(self._buffer)):
            end = self._start + len(self._buffer)
            goes_on = self._start <= self._position <= end + self._window
            self._window = min(2 * self._window, _MAX_WINDOW) if goes_on and self._window else 0
            self._window = self._window or _FIRST_WINDOW
            length = min(max(wanted, self._window), self._size - self._position)
            self._buffer = read_range(self._url, self._position, length)
            self._start, skip = self._position, 0
        self._position += wanted
        return self._buffer[skip : skip + wanted]


def _info(url: str) -> dict[str, Any]:
    return _retrying(lambda fs: fs.info(url), url)


def _retrying(call: Callable[[Any], _T], url: str) -> _T:
    """Returns what a request returns, tried again where the network or the server fails."""
    system = _system(url.partition("://")[0], os.getpid())
    server, place = urlsplit(url)[:2], url.rpartition("/")[0]
    start_s, pause_s = time.monotonic(), 0.1
    while True:
        first_s = patience.first_answer_s(server)
        try:
            result = call(system)
            patience.note_answer(server)
            patience.note_let_in(place)
            return result
        except _network_errors() as raised:
            error = _behind(raised)
            status = _status(error)
            if status is not None:
                patience.note_answer(server)
            if isinstance(error, FileNotFoundError) or status in _GONE:
                raise FileNotFoundError(url) from error
            refused = status in _REFUSED or isinstance(error, PermissionError)
            if refused and not patience.was_let_in(place):
                raise StorageRefusedError(
                    f"storage must accept the request, got {_line(error)}, in {url}. "
                    "Check the URL and the token."
                ) from error
            left_s = min(RETRY_S, first_s or RETRY_S) - (time.monotonic() - start_s)
            if left_s <= 0 and first_s is not None and status is None:
                raise ConfigError(
                    f"storage must answer, got {_line(error)}, in {url}. "
                    "Check the address and the network."
                ) from error
            is_final = status is not None and status not in _AGAIN and not refused
            if left_s <= 0 or is_final:
                raise StorageAwayError(
                    f"storage must answer within {RETRY_S:g} s, got {_line(error)}, in {url}. "
                    "Check the network, and run again."
                ) from error
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, 2.0)


def _behind(error: Exception) -> Exception:
    """Returns what the network said, where fsspec calls all of it a missing file."""
    cause = error.__cause__
    is_hidden = isinstance(error, FileNotFoundError) and isinstance(cause, _network_errors())
    return cause if is_hidden and isinstance(cause, Exception) else error


@functools.lru_cache(maxsize=8)
def _system(scheme: str, pid: int) -> Any:
    """Returns this process's filesystem of a scheme; a forked process gets its own."""
    del pid  # it only tells processes apart
    try:
        return fsspec.filesystem(scheme, skip_instance_cache=True)
    except ImportError as error:
        raise ConfigError(
            f"{scheme}:// must have its library, got {_line(error)}. "
            f"Do: pip install {_NEEDED[scheme]}."
        ) from error


@functools.cache
def _network_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of the libraries below fsspec that are there."""
    found: list[type[Exception]] = [OSError, asyncio.TimeoutError]
    for module, name in (
        ("aiohttp", "ClientError"),
        ("httpx", "HTTPError"),
        ("gcsfs.retry", "HttpError"),
    ):
        try:
            found.append(getattr(__import__(module, fromlist=[name]), name))
        except ImportError:
            continue
    return tuple(found)


def _status(error: Exception) -> int | None:
    """Returns the status that a server answered with, where it did."""
    answer = getattr(error, "response", error)
    for name in ("status", "status_code", "code"):  # of aiohttp, of httpx and requests, of gcsfs
        value = getattr(answer, name, None)
        if isinstance(value, int):
            return value
    return None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300] or type(error).__name__


def _no_ranges(url: str, got: str) -> ConfigError:
    return ConfigError(
        f"a server must answer for a range of bytes, got {got}, in {url}. "
        "Fetch the file and name the copy."
    )
