"""One small layer over local paths and s3:// URLs: reads, listings and atomic writes.

A URL is a plain string; the same functions serve local disk and S3. Credentials, region and a
custom endpoint come from the usual AWS environment variables, never from a run folder.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import fs

from raygrad.data import s3

S3_SCHEME = s3.SCHEME
_BUFFER_BYTES = 2**20
_UMASK = os.umask(0)
os.umask(_UMASK)  # it can be read by setting it only


def is_s3(url: str) -> bool:
    """Tells whether a URL names an object on S3."""
    return url.startswith(S3_SCHEME)


def join(url: str, *parts: str) -> str:
    """Returns the URL of something inside a folder."""
    return "/".join([url.rstrip("/"), *parts])


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a URL and the path within it; local paths become absolute."""
    if is_s3(url):
        return s3.filesystem(), url.removeprefix(S3_SCHEME).rstrip("/")
    return fs.LocalFileSystem(), os.path.abspath(url)


def exists(url: str) -> bool:
    """Tells whether there is a file or folder at a URL."""
    return _info(url).type != fs.FileType.NotFound


def read_bytes(url: str) -> bytes:
    """Returns the content of a file."""
    with open_input(url) as stream:
        return stream.read()


def open_input(url: str) -> pa.NativeFile | s3.S3Input:
    """Opens a file for reading at any position, with `read`, `seek`, `read_at` and `size`.

    Reads from S3 go on after a dropped connection, and are tried again for a minute.

    Raises:
        FileNotFoundError: There is no such file.
        IncompleteError: The store did not answer.
    """
    return s3.S3Input(url) if is_s3(url) else pa.OSFile(os.path.abspath(url))


def write_bytes(url: str, data: bytes, *, if_absent: bool = False) -> bool:
    """Writes a file whole or not at all, replacing one that is there.

    On local disk the bytes go to a hidden temporary file, reach the disk, and are renamed; on S3
    they go in one put.

    Args:
        url: The file.
        data: Its content.
        if_absent: Leave a file that is there as it is. Of several writers exactly one wins.

    Returns:
        Whether the file is now this one's.
    """
    if is_s3(url):
        return s3.put(url, data, if_absent)
    try:
        with open_output(url, if_absent=if_absent) as stream:
            stream.write(data)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def open_output(url: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
    """Opens a file for writing; it is there, whole, once the block is left without an error.

    The bytes go to a temporary file: on local disk a hidden one beside the target, which is
    renamed at the end; for S3 one in the temporary folder, which is uploaded at the end.

    Args:
        url: The file.
        if_absent: Local disk only: leave a file that is there as it is.

    Raises:
        FileExistsError: There is one, with `if_absent`.
    """
    if is_s3(url):
        with tempfile.TemporaryFile() as stream:
            yield stream
            s3.upload(url, stream)
        return
    target = Path(os.path.abspath(url))
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES) as stream:
            os.fchmod(descriptor, 0o666 & ~_UMASK)  # a temporary file is its owner's alone
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if if_absent:
            os.link(temporary, target)  # unlike a rename it replaces nothing
        else:
            os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def list_files(url: str, suffix: str = "") -> list[str]:
    """Returns the URLs of the files right inside a folder, sorted; none if there is no folder."""
    names = [
        info.base_name
        for info in list_infos(url)
        if info.type == fs.FileType.File
        and info.base_name.endswith(suffix)
        and not info.base_name.startswith(".")
    ]
    return [join(url, name) for name in sorted(names)]


def list_infos(url: str, *, recursive: bool = False) -> list[fs.FileInfo]:
    """Returns what is inside a folder, in no order; nothing if there is no folder."""
    system, path = filesystem(url)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=recursive)
    if is_s3(url):
        return s3.retrying(url, lambda: system.get_file_info(selector))
    return system.get_file_info(selector)


def _info(url: str) -> fs.FileInfo:
    system, path = filesystem(url)
    if is_s3(url):
        return s3.retrying(url, lambda: system.get_file_info(path))
    return system.get_file_info(path)
