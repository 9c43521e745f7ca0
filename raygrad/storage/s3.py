"""S3 that survives a dropped connection: requests are tried again, reads go on where they broke.

boto3 moves the bytes and lists folders; `pyarrow.fs` is for libraries that want a filesystem, and
is given the same endpoint. Endpoint, region and credentials come from the usual AWS environment
variables and files.
"""

import contextlib
import functools
import io
import logging
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from raygrad.errors import StorageAwayError, StorageRefusedError
from raygrad.storage import patience, s3_errors
from raygrad.storage.files import S3_SCHEME
from raygrad.storage.s3_client import client, endpoint_url, settings
from raygrad.storage.seekable import SeekableReader

log = logging.getLogger("raygrad")

RETRY_S = 120.0
"""How long a request is tried again without one byte of progress before it is given up."""

_FIRST_WINDOW = 256 * 2**10
_MAX_WINDOW = 32 * 2**20
_CHUNK = 256 * 2**10
_MAX_CHUNK = 4 * 2**20
_SKIP = 2 * 2**20
"""A gap up to this is read through: at S3's usual rates a new request costs more."""

_EXISTS = ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")
_T = TypeVar("_T")


def split_url(url: str) -> tuple[str, str]:
    """Returns bucket and key of an ``s3://bucket/key`` URL."""
    bucket, _, key = url.removeprefix(S3_SCHEME).partition("/")
    return bucket, key


def retrying(
    call: Callable[[], _T], url: str, retry_s: float | None = None, *, writes: bool = False
) -> _T:
    """Returns what `call` returns, tried again for `retry_s` where the network or server fails.

    Args:
        call: One request; it must be safe to repeat.
        url: The object, for the error text.
        retry_s: Seconds after which the last failure is final; by default `RETRY_S`.
        writes: Whether it changes what is there; that may be refused where reading is not.

    Raises:
        FileNotFoundError: There is no such object or bucket.
        ConfigError: The credentials or the request are refused, or are not there; or a command
            gets no first answer.
        StorageAwayError: The server did not answer in time, or refused what it gave before.
        IncompleteError: The object was replaced.
    """
    limit_s = RETRY_S if retry_s is None else retry_s
    start_s, pause_s, is_told = time.monotonic(), 0.1, False
    while True:
        server = settings()
        place = (server, url.rpartition("/")[0], writes)
        first_s = patience.first_answer_s(server)
        try:
            result = call()
            patience.note_answer(server)
            patience.note_let_in(server, place)
            return result
        except (Boto3Error, BotoCoreError, ClientError, HTTPError, OSError) as error:
            if isinstance(error, ClientError):
                patience.note_answer(server)
            refusal = _raise_if_final(error, url, server, place, may_pass=first_s is None)
            left_s = min(limit_s, first_s or limit_s) - (time.monotonic() - start_s)
            if left_s <= 0:
                if refusal is not None:
                    raise s3_errors.refused_since(refusal, limit_s) from error
                if first_s is not None:
                    raise s3_errors.unreachable(error, url, endpoint_url()) from error
                raise StorageAwayError(
                    f"storage must answer within {limit_s:g} s, got {error}, in {url}. "
                    "Check the endpoint and the network, and run again."
                ) from error
            if refusal is not None and not is_told:
                log.warning("%s It was let in before: asked again for %g s", refusal, limit_s)
                is_told = True
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, 2.0)


def read_range(url: str, offset: int, size: int) -> bytes:
    """Returns exactly `size` bytes at `offset` of an object, in one request where none fails.

    Raises:
        IncompleteError: The object is shorter than that, or what `retrying` raises.
    """
    if size == 0:
        return b""

    def call() -> bytes:
        body = _get(url, offset, offset + size, None)
        with contextlib.closing(body):
            return bytes(body.read())

    data = retrying(call, url)
    if len(data) < size:
        raise s3_errors.changed(url, f"{len(data)} of {size} bytes at {offset}")
    return data


def read_small(url: str, most: int) -> bytes | None:
    """Returns an object in one request, or None where it has more than `most` bytes.

    One that breaks is read again from its start.

    Raises:
        FileNotFoundError: There is no such object.
    """
    bucket, key = split_url(url)

    def call() -> bytes | None:
        answer = client().get_object(Bucket=bucket, Key=key)
        with contextlib.closing(answer["Body"]) as body:
            return bytes(body.read()) if answer["ContentLength"] <= most else None

    return retrying(call, url)


def object_size(url: str) -> int:
    """Returns an object's size in bytes.

    Raises:
        FileNotFoundError: There is no such object.
    """
    return size_and_etag(url)[0]


def size_and_etag(url: str) -> tuple[int, str | None]:
    """Returns an object's size in bytes and what names this version of it.

    Raises:
        FileNotFoundError: There is no such object.
    """
    head = _head(url, None)
    return int(head["ContentLength"]), head.get("ETag")


def exists(url: str) -> bool:
    """Tells whether there is an object, or a folder of objects, at a URL."""
    try:
        _head(url, None)
    except FileNotFoundError:
        bucket, key = split_url(url.rstrip("/"))
        found = retrying(
            lambda: client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/", MaxKeys=1), url
        )
        return found["KeyCount"] > 0
    return True


def is_object(url: str) -> bool:
    """Tells whether there is an object, and not only a folder of objects, at a URL."""
    try:
        _head(url, None)
    except FileNotFoundError:
        return False
    return True


def entries_in(url: str, prefix: str = "") -> list[tuple[str, bool]]:
    """Returns names right inside a folder and whether each is a folder of its own; sorted."""
    bucket, key = split_url(url.rstrip("/") + "/")

    def call() -> list[tuple[str, bool]]:
        pages = (
            client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=bucket, Prefix=key + prefix, Delimiter="/")
        )
        found: set[tuple[str, bool]] = set()
        for page in pages:
            found.update((one["Key"], False) for one in page.get("Contents", ()))
            found.update((one["Prefix"], True) for one in page.get("CommonPrefixes", ()))
        return sorted(
            (name.removeprefix(key).rstrip("/"), is_folder)
            for name, is_folder in found
            if name != key
        )

    return retrying(call, url)


def names_in(url: str) -> list[str]:
    """Returns the names of the objects right inside a folder, sorted; none if there is none."""
    return sorted(states_in(url))


def states_in(url: str) -> dict[str, tuple[int, str]]:
    """Returns size in bytes and ETag of the objects right inside a folder, by name."""
    bucket, key = split_url(url.rstrip("/") + "/")

    def call() -> dict[str, tuple[int, str]]:
        pages = (
            client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=bucket, Prefix=key, Delimiter="/")
        )
        found = (one for page in pages for one in page.get("Contents", ()))
        return {
            one["Key"].removeprefix(key): (int(one["Size"]), str(one.get("ETag", "")))
            for one in found
            if one["Key"] != key
        }

    return retrying(call, url)


def paths_in(url: str, *, recursive: bool) -> list[tuple[str, bool]]:
    """Returns what is inside a folder as ``bucket/key``, and whether each is a folder itself."""
    bucket, key = split_url(url.rstrip("/") + "/")
    one_level = {} if recursive else {"Delimiter": "/"}

    def call() -> list[tuple[str, bool]]:
        paginator = client().get_paginator("list_objects_v2")
        found = []
        for page in paginator.paginate(Bucket=bucket, Prefix=key, **one_level):
            found += [(one["Key"], False) for one in page.get("Contents", ())]
            found += [(one["Prefix"].rstrip("/"), True) for one in page.get("CommonPrefixes", ())]
        return [(f"{bucket}/{name}", is_folder) for name, is_folder in found if name != key]

    return retrying(call, url)


def put(url: str, data: bytes, *, if_absent: bool = False) -> bool:
    """Writes an object in one put: it is there whole, or as it was before.

    Returns:
        False where `if_absent` was asked for and there is one already.
    """
    bucket, key = split_url(url)
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    num_tries = 0

    def call() -> bool:
        nonlocal num_tries
        num_tries += 1
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as error:
            if not if_absent or error.response["Error"]["Code"] not in _EXISTS:
                raise
            # What is there may be of a try of ours whose answer was lost.
            return num_tries > 1 and S3File(url).read() == data
        return True

    return retrying(call, url, writes=True)


def upload(path: str, url: str) -> None:
    """Makes an object of a local file, in parts where it is large: it is there whole or not."""
    bucket, key = split_url(url)
    retrying(lambda: client().upload_file(path, bucket, key), url, writes=True)


def remove(url: str) -> None:
    """Removes an object, and the objects of the folder of that name."""
    bucket, key = split_url(url.rstrip("/"))

    def call() -> None:
        client().delete_object(Bucket=bucket, Key=key)
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/")
        for one in (one for page in pages for one in page.get("Contents", ())):
            client().delete_object(Bucket=bucket, Key=one["Key"])

    retrying(call, url, writes=True)


class S3File(SeekableReader):
    """An object as a seekable file for reading.

    Reading on, also over a small gap, goes through windows that grow, so that a whole shard is a
    handful of requests; a read elsewhere starts again with a small one. A stream that breaks is
    opened again at the byte where it broke. Every request demands the same version of the object.

    Args:
        url: The object.
        retry_s: Seconds without progress after which a read is given up.

    Raises:
        FileNotFoundError: There is no such object.
    """

    def __init__(self, url: str, retry_s: float | None = None) -> None:
        head = _head(url, retry_s)
        super().__init__(int(head["ContentLength"]))
        self._url, self._retry_s, self._etag = url, retry_s, head.get("ETag")
        self._buffer, self._buffer_start = b"", 0
        self._body: Any = None
        self._body_end = 0
        self._window = 0

    def read(self, size: int | None = -1) -> bytes:
        """Returns `size` bytes, fewer only at the object's end."""
        wanted = self._wanted(size)
        pieces = []
        while wanted:
            skip = self._position - self._buffer_start
            piece = self._buffer[skip : skip + wanted] if skip >= 0 else b""
            if not piece:
                retrying(functools.partial(self._fill, wanted), self._url, self._retry_s)
                continue
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Ends the open request, if there is one."""
        self._drop()
        super().close()

    def _fill(self, wanted: int) -> None:
        """Gets the chunk that begins at the position, or one that ends before it, for a skip."""
        at = self._buffer_start + len(self._buffer)
        if not at <= self._position <= at + _SKIP:
            self._drop()
            self._window = 0
        if self._body is None or at >= self._body_end:
            self._open(wanted)
            at = self._buffer_start
        try:
            chunk = self._body.read(min(max(_CHUNK, wanted), _MAX_CHUNK, self._body_end - at))
            if not chunk:
                raise OSError(f"connection closed at byte {at} of {self._size}")
        except BaseException:
            self._drop()
            raise
        self._buffer, self._buffer_start = bytes(chunk), at

    def _open(self, wanted: int) -> None:
        self._drop()
        start = self._position
        self._window = min(max(2 * self._window, _FIRST_WINDOW), _MAX_WINDOW)
        end = min(self._size, start + max(wanted, self._window))
        self._body = _get(self._url, start, end, self._etag)
        self._body_end, self._buffer, self._buffer_start = end, b"", start

    def _drop(self) -> None:
        if self._body is not None:
            with contextlib.suppress(OSError, HTTPError):
                self._body.close()
        self._body = None


def _head(url: str, retry_s: float | None) -> dict[str, Any]:
    bucket, key = split_url(url)

    def call() -> dict[str, Any]:
        try:
            return client().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if s3_errors.is_bare(error):
                client().get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
            raise

    return retrying(call, url, retry_s)


def _get(url: str, start: int, end: int, etag: str | None) -> Any:
    bucket, key = split_url(url)
    same = {"IfMatch": etag} if etag else {}
    answer = client().get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **same)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 206 or answer.get("ContentRange") is not None:
        return answer["Body"]
    with contextlib.closing(answer["Body"]) as body:  # all of it: a server that knows no ranges
        return io.BytesIO(bytes(body.read())[start:end])


def _raise_if_final(
    error: BaseException | None, url: str, server: Hashable, place: Hashable, *, may_pass: bool
) -> StorageRefusedError | None:
    """Raises what asking again cannot help; returns a refusal of what was given before."""
    if isinstance(error, Boto3Error):
        error = error.__context__  # an upload hides what the server said
    final = None if error is None else s3_errors.final_error(error, url, may_pass=may_pass)
    if isinstance(final, StorageRefusedError) and patience.was_let_in(
        server if s3_errors.is_of_credentials(error) else place
    ):
        return final
    if final is not None:
        raise final from error
    return None
