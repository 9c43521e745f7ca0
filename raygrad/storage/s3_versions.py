"""Ranges of one version of an object on S3, without a request that only asks for its state."""

import contextlib
import functools
import threading

from botocore.exceptions import ClientError

from raygrad.storage import s3_errors
from raygrad.storage.s3 import retrying, size_and_etag, split_url
from raygrad.storage.s3_client import client

_Answer = tuple[bytes, int, str | None]
"""Bytes, the size of the whole object, and what names its version."""


class OneVersion:
    """An object whose ranges are all of one version: the one that the first answer names.

    Size and version come with every answer. Asked for beforehand, they would double the requests
    where a shard is one. Threads may share it.

    Args:
        url: The object.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._etag: str | None = None
        self._is_known, self._lock = False, threading.Lock()

    def read(self, offset: int, size: int) -> tuple[bytes, int]:
        """Returns `size` bytes at an offset, fewer only at the object's end, and its whole size.

        Raises:
            FileNotFoundError: There is no such object.
            IncompleteError: It was replaced since the first range, or storage does not answer.
        """
        asked = functools.partial(self._ask, offset, size)
        data, num_bytes, etag = retrying(asked, self._url)
        with self._lock:
            if not self._is_known:
                self._etag, self._is_known = etag, True
        if etag != self._etag:
            raise s3_errors.changed(self._url, "another version")
        if len(data) != max(0, min(size, num_bytes - offset)):
            raise s3_errors.changed(self._url, f"{len(data)} of {size} bytes at {offset}")
        return data, num_bytes

    def _ask(self, offset: int, size: int) -> _Answer:
        bucket, key = split_url(self._url)
        same = {"IfMatch": self._etag} if self._etag else {}
        part = f"bytes={offset}-{offset + size - 1}"
        try:
            answer = client().get_object(Bucket=bucket, Key=key, Range=part, **same)
        except ClientError as error:
            if not s3_errors.is_beyond_the_end(error):
                raise
            return b"", *size_and_etag(self._url)
        with contextlib.closing(answer["Body"]) as body:
            data = bytes(body.read())
        etag, within = answer.get("ETag"), answer.get("ContentRange")
        if within is None:  # the whole object, by a server that does not know of ranges
            return data[offset : offset + size], len(data), etag
        return data, int(within.rpartition("/")[2]), etag
