"""One small layer over local paths and s3:// URLs: reads, listings and atomic writes.

A URL is a plain string; the same functions serve local disk and S3, and to read also ``https://``,
``gs://`` and ``hf://``. Credentials, region and a custom endpoint come from the usual environment
variables, never from a run folder.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
from pyarrow import fs

from raygrad.errors import ConfigError, IncompleteError
from raygrad.storage import remote
from raygrad.storage.when_used import WhenUsed

if TYPE_CHECKING:
    from raygrad.storage import s3, s3_client
else:
    # boto3 takes a third of a second of CPU in every process; most runs are on a disk.
    s3, s3_client = (WhenUsed(f"raygrad.storage.{name}") for name in ("s3", "s3_client"))

S3_SCHEME = "s3://"

_BUFFER_BYTES = 2**20
_SMALL = 8 * 2**20
"""What one request reads whole: it is soon read again where the answer breaks."""
_SCHEME = re.compile(r"(pipe|file|[A-Za-z][A-Za-z0-9+.-]*(?=://)):")
_ONE_SLASH = re.compile(r"(s3[an]?|gcs|gs|hf|https?):/?(?!/)", re.IGNORECASE)
_SAME_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
_UMASK = os.umask(0)
os.umask(_UMASK)  # it can be read by setting it only


def is_s3(url: str) -> bool:
    """Tells whether a URL names an object on S3."""
    return url.startswith(S3_SCHEME)


def is_local(url: str) -> bool:
    """Tells whether a URL is a path on this machine."""
    return not is_s3(url) and not remote.is_remote(url)


def is_page(url: str) -> bool:
    """Tells whether a URL is a web server's, which lists no folders."""
    return url.startswith(("https://", "http://"))


def checked_url(url: str) -> str:
    """Returns a URL in the one form that is used here: a path, or a scheme in small letters.

    Raises:
        ConfigError: It is of a kind that cannot be read.
    """
    one_slash = _ONE_SLASH.match(url)
    if one_slash is not None:
        right = f"{one_slash[1]}://{url[one_slash.end() :]}"
        raise ConfigError(
            f"a URL must have two slashes behind its scheme, got {url!r}. Write {right!r}."
        )
    match = _SCHEME.match(url)
    if match is None:
        return url
    scheme = match[1].lower()
    scheme = _SAME_SCHEMES.get(scheme, scheme)
    if scheme == "file":
        path = url[match.end() :].removeprefix("//")
        return path.removeprefix("localhost") or "/"
    if scheme not in ("s3", *remote.SCHEMES):
        raise ConfigError(
            f"files must be local or s3://, gs://, hf://, https:// or http://, got {url!r}. "
            "Copy them to one of these, or mount their store as a folder."
        )
    return f"{scheme}://{url[match.end() :].removeprefix('//')}"


def join(url: str, *parts: str) -> str:
    """Returns the URL of something inside a folder."""
    return "/".join([url.rstrip("/"), *parts])


def absolute(url: str) -> str:
    """Returns a URL that means the same in every process, whatever folder it works in."""
    url = checked_url(url)
    return os.path.abspath(url) if is_local(url) else url


def is_absolute(url: str) -> bool:
    """Tells whether a URL means the same in every folder."""
    return not is_local(url) or os.path.isabs(url)


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a URL and the path within it; local paths become absolute."""
    if is_s3(url):
        return _s3_filesystem(), url.removeprefix(S3_SCHEME).rstrip("/")
    return fs.LocalFileSystem(), os.path.abspath(url)


def exists(url: str) -> bool:
    """Tells whether there is a file or folder at a URL."""
    if is_s3(url):
        return s3.exists(url)
    if remote.is_remote(url):
        return remote.exists(url)
    system, path = filesystem(url)
    return system.get_file_info(path).type != fs.FileType.NotFound


def read_bytes(url: str) -> bytes:
    """Returns the content of a file; of a small one on S3 by one request."""
    if is_s3(url) and (small := s3.read_small(url, _SMALL)) is not None:
        return small
    with open_input(url) as stream:
        return stream.read()


def open_input(url: str) -> pa.NativeFile:
    """Opens a file for reading at any position; on S3 the read survives dropped connections.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if is_s3(url):
        return pa.PythonFile(s3.S3File(url), mode="r")
    if remote.is_remote(url):
        return pa.PythonFile(remote.RemoteFile(url), mode="r")
    system, path = filesystem(url)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return system.open_input_file(path)


def read_range(url: str, offset: int, size: int) -> bytes:
    """Returns exactly `size` bytes at `offset`: one request on S3, one read on local disk.

    Raises:
        IncompleteError: The file is shorter than that, or storage does not answer.
    """
    if is_s3(url):
        return s3.read_range(url, offset, size)
    if remote.is_remote(url):
        return remote.read_range(url, offset, size)
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
    if remote.is_remote(url):
        return remote.size_of(url)
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
    _require_writable(url)
    target = Path(os.path.abspath(url))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which must not be taken for the file's being there
        raise NotADirectoryError(errno.ENOTDIR, "a file, not a folder", error.filename) from error
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


def _require_writable(url: str) -> None:
    if remote.is_remote(url):
        raise ConfigError(f"what is written must be local or on s3://, got {url}. Name another.")


def _temporary(folder: Path) -> tuple[int, str | None]:
    """Opens a temporary file in a folder; returns its descriptor, and its name where it has one.

    Where Linux and the file system can, it has none until it is whole: a process that is killed
    while it writes leaves nothing behind.
    """
    if os.path.isdir("/proc/self/fd") and hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600), None
    return tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)


def remove(url: str) -> None:
    """Removes a file, or a folder with all that is in it; nothing where there is neither."""
    if is_s3(url):
        s3.remove(url)
    elif os.path.isdir(url) and not os.path.islink(url):
        shutil.rmtree(url)
    else:
        Path(url).unlink(missing_ok=True)


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


def is_file(url: str) -> bool:
    """Tells whether there is a file at a URL; a link counts, also one that leads nowhere."""
    if is_s3(url):
        return s3.is_object(url)
    if remote.is_remote(url):
        return remote.is_file(url)
    try:
        os.lstat(url)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not os.path.isdir(url)


def is_folder(url: str) -> bool:
    """Tells whether there is a folder at a URL."""
    if is_s3(url):
        return not s3.is_object(url) and s3.exists(url)
    if remote.is_remote(url):
        return not is_page(url) and remote.exists(url) and not remote.is_file(url)
    return os.path.isdir(url)


def list_entries(url: str, prefix: str = "") -> list[tuple[str, bool]]:
    """Returns what is right inside a folder: names, and whether each is a folder; sorted.

    Links count as what they lead to, and as files where they lead nowhere.

    Args:
        url: The folder; there need not be one.
        prefix: Names begin with it; a store is asked for these alone.

    Raises:
        PermissionError: The folder may not be read.
    """
    if is_s3(url):
        return s3.entries_in(url, prefix)
    if remote.is_remote(url):
        return [one for one in remote.entries_in(url) if one[0].startswith(prefix)]
    try:
        with os.scandir(url) as entries:
            found = [(one.name, one.is_dir()) for one in entries if one.name.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def states(urls: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Returns size in bytes and version of files, by URL; those that are not there are left out.

    The version is the time of the last change on local disk and the ETag on S3, where a folder is
    listed in a request a thousand objects and none is asked for alone. Of other places, which
    have no such listing, only the size is known.
    """
    found: dict[str, tuple[int, str]] = {}
    folders: dict[str, set[str]] = {}
    for url in urls:
        if is_s3(url):
            folder, _, name = url.rpartition("/")
            folders.setdefault(folder, set()).add(name)
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not is_local(url):
                found[url] = file_size(url), ""
            else:
                info = os.stat(url)
                found[url] = info.st_size, str(info.st_mtime_ns)
    for folder, names in folders.items():
        there = s3.states_in(folder)
        found |= {join(folder, name): there[name] for name in names if name in there}
    return found


def states_in(url: str, suffix: str = "") -> dict[str, tuple[int, str]]:
    """Returns size and version, as of `states`, of the files right inside a folder, by name."""
    if is_s3(url):
        return {name: of for name, of in s3.states_in(url).items() if _is_listed(name, suffix)}
    if not is_local(url):
        found = states(list_files(url, suffix))
        return {one.rsplit("/", 1)[-1]: state for one, state in found.items()}
    there: dict[str, tuple[int, str]] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(url) as entries:
        for one in entries:
            try:  # a context manager an entry would take as long as the listing itself
                if _is_listed(one.name, suffix) and one.is_file():
                    there[one.name] = (info := one.stat()).st_size, str(info.st_mtime_ns)
            except FileNotFoundError:  # it has gone since, or is a link that leads nowhere
                continue
    return {name: there[name] for name in sorted(there)}


def list_infos(url: str, *, recursive: bool = False) -> list[fs.FileInfo]:
    """Returns what is inside a folder, in no order; nothing if there is no folder."""
    if is_s3(url):
        return [
            fs.FileInfo(path, fs.FileType.Directory if is_folder else fs.FileType.File)
            for path, is_folder in s3.paths_in(url, recursive=recursive)
        ]
    system, path = filesystem(url)
    selector = fs.FileSelector(path, allow_not_found=True, recursive=recursive)
    return system.get_file_info(selector)


def _is_listed(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def _s3_filesystem() -> fs.S3FileSystem:
    endpoint = s3_client.endpoint_url()
    scheme, _, host = endpoint.partition("://")
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return fs.S3FileSystem()
    return fs.S3FileSystem(endpoint_override=host, scheme=scheme)
