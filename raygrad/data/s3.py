"""S3 with patience: reads that go on after a dropped connection, writes that appear whole.

Reads and listings go through pyarrow, writes through boto3, which alone can write only where
nothing is yet. Credentials, region and a custom endpoint come from the usual AWS environment
variables, never from a run folder.
"""

import functools
import io
import os
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from pyarrow import fs

from raygrad.errors import IncompleteError

SCHEME = "s3://"
PATIENCE_S = 60.0
"""How long a request is tried again before the work is given up; a server may restart in it."""
_FIRST_WAIT_S, _LAST_WAIT_S = 0.2, 4.0
_BLOCK_BYTES = 4 * 2**20
_ENVIRONMENT = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""What a filesystem is made from; another value of any makes another one."""
_FINAL = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY",
    "SIGNATURE_DOES_NOT_MATCH",
    "NO_SUCH_BUCKET",
    "INVALID_CLIENT_TOKEN_ID",
    "RESOURCE_NOT_FOUND",
    "HTTP status 403",
    "HTTP status 404",
)
_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")

Result = TypeVar("Result")


def filesystem() -> fs.S3FileSystem:
    """Returns the S3 filesystem of the environment."""
    return _filesystem(tuple(os.environ.get(name) for name in _ENVIRONMENT))


@functools.lru_cache(maxsize=4)
def _filesystem(environment: tuple[str | None, ...]) -> fs.S3FileSystem:
    options = {"connect_timeout": 5.0, "request_timeout": 30.0}
    endpoint = environment[0] or environment[1]
    if not endpoint:
        return fs.S3FileSystem(**options)
    scheme, _, host = endpoint.partition("://")
    return fs.S3FileSystem(endpoint_override=host, scheme=scheme, **options)


def retrying(what: str, request: Callable[[], Result]) -> Result:
    """Returns what a request returns, trying again while the server cannot be reached.

    Raises:
        IncompleteError: The server did not answer for `PATIENCE_S`.
        OSError: The server refused; trying again would change nothing.
    """
    begin_s, wait_s = time.monotonic(), _FIRST_WAIT_S
    while True:
        try:
            return request()
        except (OSError, BotoCoreError, ClientError) as error:
            if _is_final(error):
                raise
            if time.monotonic() - begin_s > PATIENCE_S:
                raise IncompleteError(
                    f"the store must answer within {PATIENCE_S:.0f} s, got {error} for {what}. "
                    "Run again to go on."
                ) from error
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_WAIT_S)


def _is_final(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | NoCredentialsError):
        return True
    if isinstance(error, ClientError):
        return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 500)) < 500
    return any(text in str(error) for text in _FINAL)


class S3Input(io.RawIOBase):
    """An object for reading at any position; every request is tried again while it fails.

    Sequential reads go through a block of 4 MiB, so that a pass over the headers of a tar is a
    few long requests; `read_at` asks for exactly its range, and may run in several threads.

    Args:
        url: The object.

    Raises:
        FileNotFoundError: There is no such object.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._path = url, url.removeprefix(SCHEME)
        self._stream = retrying(url, lambda: filesystem().open_input_file(self._path))
        self._size = retrying(url, self._stream.size)
        self._position = 0
        self._block, self._block_at = b"", 0

    def size(self) -> int:
        """Returns the size of the object in bytes."""
        return self._size

    def read_at(self, size: int, offset: int) -> bytes:
        """Returns `size` bytes from `offset`, fewer only at the object's end."""
        wanted = max(0, min(size, self._size - offset))

        def request() -> bytes:
            data = self._stream.read_at(wanted, offset)
            if len(data) < wanted:  # a connection that was cut is not the object's end
                raise OSError(f"got {len(data)} of {wanted} bytes")
            return data

        return retrying(self._url, request) if wanted else b""

    def read(self, size: int | None = -1) -> bytes:
        """Returns the next `size` bytes, fewer only at the object's end; all without a size."""
        left = self._size - self._position
        size = left if size is None or size < 0 else min(size, left)
        begin = self._position - self._block_at
        if not 0 <= begin <= len(self._block) - size:
            self._block_at = self._position
            self._block = self.read_at(max(size, _BLOCK_BYTES), self._position)
            begin = 0
        self._position += max(0, size)
        return self._block[begin : begin + max(0, size)]

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer; returns how many bytes it got."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position and returns it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True


def put(url: str, data: bytes, if_absent: bool) -> bool:
    """Writes an object in one request.

    Returns:
        False where `if_absent` was asked for and there is one already.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    num_tries = 0

    def request() -> bool:
        nonlocal num_tries
        num_tries += 1
        try:
            _client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _EXISTS:
                raise
            # What is there may be of a try of ours whose answer was lost.
            return num_tries > 1 and S3Input(url).read() == data
        return True

    return retrying(url, request)


def upload(url: str, stream: IO[bytes]) -> None:
    """Writes an object from a seekable file, in parts where it is large; it appears whole."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")

    def request() -> None:
        # A copy of the handle, because boto3 closes what it is given.
        with os.fdopen(os.dup(stream.fileno()), "rb") as source:
            source.seek(0)
            _client().upload_fileobj(source, bucket, key)

    stream.flush()
    retrying(url, request)


def _client() -> Any:
    config = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5)
    return boto3.client("s3", config=config)
