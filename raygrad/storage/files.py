"""One small layer over local paths and s3:// URLs: reads, listings and atomic writes.

A URL is a plain string; the same functions serve local disk and S3. Credentials, region and a
custom endpoint come from the usual AWS environment variables, never from a run folder.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import fs

from raygrad.errors import IncompleteError
from raygrad.storage import s3
from raygrad.storage.s3 import S3_SCHEME

_BUFFER_BYTES = 2**20
_UMASK = os.umask(0)
os.umask(_UMASK)  # it can be read by setting it only


def is_s3(url: str) -> bool:
    """Tells whether a URL names an object on S3."""
    return url.startswith(S3_SCHEME)


def join(url: str, *parts: str) -> str:
    """Returns the URL of something inside a folder."""
    return "/".join([url.rstrip("/"), *parts])


def absolute(url: str) -> str:
    """Returns a URL that means the same in every process, whatever folder it works in."""
    return url if is_s3(url) else os.path.abspath(url)


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a URL and the path within it; local paths become absolute."""
    if is_s3(url):
        return _s3_filesystem(), url.removeprefix(S3_SCHEME).rstrip("/")
    return fs.LocalFileSystem(), os.path.abspath(url)


def exists(url: str) -> bool:
    """Tells whether there is a file or folder at a URL."""
    if is_s3(url):
        return s3.exists(url)
    system, path = filesystem(url)
    return system.get_file_info(path).type != fs.FileType.NotFound


def read_bytes(url: str) -> bytes:
    """Returns the content of a file."""
    with open_input(url) as stream:
        return stream.read()


def open_input(url: str) -> pa.NativeFile:
    """Opens a file for reading at any position; on S3 the read survives dropped connections.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if is_s3(url):
        return pa.PythonFile(s3.S3File(url), mode="r")
    system, path = filesystem(url)
    return system.open_input_file(path)


def read_range(url: str, offset: int, size: int) -> bytes:
    """Returns exactly `size` bytes at `offset`: one request on S3, one read on local disk.

    Raises:
        IncompleteError: The file is shorter than that, or storage does not answer.
    """
    if is_s3(url):
        return s3.read_range(url, offset, size)
    with open(url, "rb", buffering=0) as stream:
        data = os.pread(stream.fileno(), size, offset)
        while len(data) < size and (more := os.pread(stream.fileno(), size, offset + len(data))):
            data += more[: size - len(data)]
    if len(data) < size:
        raise IncompleteError(
            f"a file must not change while it is read, got {len(data)} of {size} bytes at "
            f"{offset}, in {url}. Build the index again if the shard was replaced."
        )
    return data


def file_size(url: str) -> int:
    """Returns a file's size in bytes.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if is_s3(url):
        return s3.object_size(url)
    return os.stat(url).st_size


def write_bytes(url: str, data: bytes, *, if_absent: bool = False) -> bool:
    """Writes a file whole or not at all, replacing one that is there.

    On local disk the bytes go to a temporary file, reach the disk, and take the file's name; on S3
    they go in one put.

    Args:
        url: The file.
        data: Its content.
        if_absent: Leave a file that is there as it is. Of several writers exactly one wins.

    Returns:
        Whether the file is now this one's.
    """
    if is_s3(url):
        return s3.put(url, data, if_absent=if_absent)
    try:
        with open_output(url, if_absent=if_absent) as stream:
            stream.write(data)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def open_output(url: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
    """Opens a file for writing; it is there, whole, once the block is left without an error.

    The bytes go to a temporary file: on local disk one beside the target, without a name or hidden,
    which takes the target's name at the end; for S3 one in the temporary folder, which is uploaded
    at the end.

    Args:
        url: The file.
        if_absent: Local disk only: leave a file that is there as it is.

    Raises:
        FileExistsError: There is one, with `if_absent`.
    """
    if is_s3(url):
        with tempfile.NamedTemporaryFile(suffix=".tmp") as stream:
            yield stream
            stream.flush()
            s3.upload(stream.name, url)
        return
    target = Path(os.path.abspath(url))
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _temporary(target.parent)
    try:
        with os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES) as stream:
            os.fchmod(descriptor, 0o666 & ~_UMASK)  # a temporary file is its owner's alone
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if temporary is None:
                temporary = str(target.parent / f".{uuid.uuid4().hex}.tmp")
                # With src_dir_fd, which the absolute path makes idle, os.link follows the link.
                os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor)
        if if_absent:
            os.link(temporary, target)  # unlike a rename it replaces nothing
        else:
            os.replace(temporary, target)
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _temporary(folder: Path) -> tuple[int, str | None]:
    """Opens a temporary file in a folder; returns its descriptor, and its name where it has one.

    Where Linux and the file system can, it has none until it is whole: a process that is killed
    while it writes leaves nothing behind.
    """
    if os.path.isdir("/proc/self/fd") and hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), None
    return tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)


def list_files(url: str, suffix: str = "") -> list[str]:
    """Returns the URLs of the files right inside a folder, sorted; none if there is no folder."""
    if is_s3(url):
        return [join(url, name) for name in s3.names_in(url) if _is_listed(name, suffix)]
    names = [
        info.base_name
        for info in list_infos(url)
        if info.type == fs.FileType.File and _is_listed(info.base_name, suffix)
    ]
    return [join(url, name) for name in sorted(names)]


def list_infos(url: str, *, recursive: bool = False) -> list[fs.FileInfo]:
    """Returns what is inside a folder, in no order; nothing if there is no folder."""
    system, path = filesystem(url)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=recursive)
    if is_s3(url):
        return s3.retrying(lambda: system.get_file_info(selector), url)
    return system.get_file_info(selector)


def _is_listed(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def _s3_filesystem() -> fs.S3FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return fs.S3FileSystem()
    scheme, _, host = endpoint.partition("://")
    return fs.S3FileSystem(endpoint_override=host, scheme=scheme)
