"""Decoded splits on a node's own disk: allocated whole, kept shard by shard, evicted for room.

A split has one file of pixels, `NAME.npy`, which processes map, and one of what else is known of
it, `NAME.arrow`, which is written last and says that the pixels are all there. Until then each
shard that is decoded leaves a part in `NAME.parts`, so that a decode that is killed goes on.
"""

import contextlib
import errno
import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.errors import ResourceError

FORMAT = 2
"""What the files hold; those of another format have other names."""
_SIZE, _COUNTS = b"pixel_bytes", b"counts"
_NAMED = "--data.cache-dir of raygrad run, --cache-dir of prepare, or TMPDIR where none is named"
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

_used: dict[Path, IO[str]] = {}
"""The locks of what this process maps, held until it ends: nobody evicts that."""


@dataclass(frozen=True)
class Tables:
    """What is known of decoded images beside their pixels."""

    used: pa.Table
    """Of each usable image: key, label and, of a part, its row."""
    rejects: pa.Table
    """Shard, key and reason of each that could not be decoded."""
    counts: NDArray[np.int64]
    """How often each value of a byte comes in each channel, `[C, 256]`."""


def user_folder(folder: str) -> Path:
    """Returns a user's own folder inside a folder of decoded images that several users may share.

    Raises:
        ResourceError: It cannot be made, or is somebody else's.
    """
    shared, own = Path(folder), Path(folder, f"user-{os.getuid()}")
    try:
        if not shared.exists():
            shared.mkdir(parents=True, exist_ok=True)
            shared.chmod(0o1777)  # as a folder of temporary files
        own.mkdir(mode=0o700, exist_ok=True)
        owner = own.lstat().st_uid
        if owner != os.getuid() or own.is_symlink():
            raise PermissionError(errno.EACCES, f"it belongs to user {owner}", str(own))
    except OSError as error:
        raise ResourceError(
            f"the folder of decoded images must be writable by user {os.getuid()}, got {error}. "
            f"Name another one on each node's own disk: {_NAMED}."
        ) from error
    return own


def room_for_pixels(folder: str, most_bytes: int = 0) -> int:
    """Returns how many bytes of decoded images this node's disk may hold of this user.

    That is what is free, and what this user's images take already, which others may replace or
    which may be those that are wanted.

    Args:
        folder: As of `user_folder`; it need not be there.
        most_bytes: As of `CacheEntry`.
    """
    own = Path(folder, f"user-{os.getuid()}")
    there = next(path for path in (own, *own.absolute().parents) if path.exists())
    kept = sum(path.stat().st_blocks * 512 for path in own.glob("*.npy"))
    room = shutil.disk_usage(there).free + kept
    return min(room, most_bytes) if most_bytes else room


class CacheEntry:
    """One decoded split in a user's folder.

    Args:
        folder: The user's folder.
        name: Of the split, its content and everything that decides its pixels.
        most_bytes: At most so many bytes of pixels are kept in the folder; 0 for no bound but the
            disk's.
    """

    def __init__(self, folder: Path, name: str, most_bytes: int = 0) -> None:
        self._folder, self._name, self._most_bytes = folder, name, most_bytes
        self._pixels, self._facts, self._parts, self._closing = (
            folder / f"{name}.{ending}" for ending in ("npy", "arrow", "parts", "closing")
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Waits until no other process decodes this split; the system unlocks should this die."""
        with open(self._folder / f"{self._name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def hold(self) -> None:
        """Keeps the files from being evicted while this process lives; called while locked."""
        path = self._folder / f"{self._name}.used"
        if path not in _used:
            _used[path] = open(path, "w")  # noqa: SIM115  # it is closed by the process's end
            fcntl.flock(_used[path], fcntl.LOCK_SH)
        os.utime(self._facts)  # when it was last used

    def is_complete(self) -> bool:
        """Tells whether pixels and facts are there, neither cut nor taken away, and facts whole.

        Of the pixels, header and size are looked at.
        """
        if _read_whole(self._facts) is None:
            return False
        with pa.OSFile(str(self._facts)) as stream:
            metadata = pa.ipc.open_stream(stream).schema.metadata
        there = self._pixels.stat().st_size if self._pixels.exists() else 0
        if there and _mapped(self._pixels) is None:
            return False
        return there == int(metadata[_SIZE])

    def begin(self) -> NDArray[np.uint8] | None:
        """Removes what cannot be gone on from: facts without pixels, pixels half closed up or cut.

        Returns the pixels, mapped, that a process left whose decode was cut off; None for none.

        Raises:
            ResourceError: The disk has no room for them.
        """
        stale = self._facts.exists() or self._closing.exists()
        pixels = None if stale else self._left()
        if pixels is None:
            self._remove()
        else:
            self._take_blocks(pixels.nbytes)
        self._parts.mkdir(exist_ok=True)
        return pixels

    def _left(self) -> NDArray[np.uint8] | None:
        # For reading first: what is opened for writing is filled up with zeros where it is cut.
        return None if _mapped(self._pixels) is None else _mapped(self._pixels, "r+")

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Returns new pixels, mapped, on a disk with room.

        Raises:
            ResourceError: The disk, or what may be used of it, has no room.
        """
        self._make_room(math.prod(shape))
        made = np.lib.format.open_memmap(self._pixels, "w+", np.uint8, shape)
        self._take_blocks(made.nbytes)
        return made

    def _take_blocks(self, needed: int) -> None:
        try:
            self._fill(self._pixels)
        except OSError as error:
            self._pixels.unlink()
            raise self._no_room(needed) from error

    @staticmethod
    def _fill(path: Path) -> None:
        """Takes every block of a file now: a full disk is met here, and not by a write to a map."""
        with open(path, "r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
            except OSError as error:
                if error.errno not in _NO_FALLOCATE:
                    raise

    def part(self, number: int) -> Tables | None:
        """Returns what is known of a shard that was decoded before, None where it was not."""
        path = self._parts / f"{number}.arrow"
        return _read_whole(path) if self._pixels.exists() else None

    def keep(self, number: int, tables: Tables) -> None:
        """Commits a shard: its pixels reach the disk before what says that they are there."""
        if self._pixels.exists():  # none where every image so far was rejected
            with open(self._pixels, "rb") as stream:
                os.fdatasync(stream.fileno())
        _write(self._parts / f"{number}.arrow", tables, {})

    def is_closing_up(self) -> None:
        """Notes that images begin to move, after which parts are not true any more."""
        self._closing.touch()

    def finish(self, tables: Tables) -> None:
        """Writes all but the pixels, last and atomically: it says that the pixels are there."""
        size = 0
        if self._pixels.exists():
            with open(self._pixels, "rb") as stream:
                os.fdatasync(stream.fileno())
                size = os.fstat(stream.fileno()).st_size
        _write(self._facts, tables, {_SIZE: str(size).encode()})
        self._closing.unlink(missing_ok=True)
        shutil.rmtree(self._parts)

    def read(self) -> tuple[NDArray[np.uint8], Tables]:
        """Returns the pixels, mapped for reading, and what else is known.

        Raises:
            ResourceError: They were taken away just now.
        """
        try:
            tables = _read(self._facts)
            if not self._pixels.exists() and tables.used.num_rows == 0:
                return np.empty((0, 0, 0, 0), np.uint8), tables
            return np.load(self._pixels, mmap_mode="r")[: tables.used.num_rows], tables
        except FileNotFoundError as error:
            raise ResourceError(
                f"decoded images must stay while they are used, got none at {error.filename}. Keep "
                f"what cleans temporary files from it, or name another: {_NAMED}."
            ) from error

    def _make_room(self, needed: int) -> None:
        """Evicts what was used longest ago until there is room."""
        kept = [path for ending in ("npy", "arrow") for path in self._folder.glob(f"*.{ending}")]
        found = {path.stem for path in kept}
        others = [CacheEntry(self._folder, name) for name in found - {self._name}]
        others.sort(key=lambda one: one._last_used_s())
        while not self._has_room(needed):
            if not others:
                raise self._no_room(needed)
            others.pop(0)._evict()

    def _has_room(self, needed: int) -> bool:
        kept = 0
        for path in self._folder.glob("*.npy"):
            with contextlib.suppress(FileNotFoundError):  # another process evicts too
                kept += path.stat().st_size
        in_bound = not self._most_bytes or kept + needed <= self._most_bytes
        return in_bound and needed <= shutil.disk_usage(self._folder).free

    def _no_room(self, needed: int) -> ResourceError:
        free = shutil.disk_usage(self._folder).free
        bound = f" and a bound of {self._most_bytes / 1e9:.1f} GB" if self._most_bytes else ""
        return ResourceError(
            f"decoded images of {needed / 1e9:.1f} GB must fit the node's disk, got "
            f"{free / 1e9:.1f} GB free in {self._folder}{bound}, and nothing there that is not in "
            f"use. Name a larger one: {_NAMED}."
        )

    def _last_used_s(self) -> float:
        last = 0.0
        for path in (self._facts, self._pixels):
            with contextlib.suppress(FileNotFoundError):
                last = max(last, path.stat().st_mtime)
        return last

    def _evict(self) -> None:
        """Removes the files, unless a process decodes into them or maps them."""
        with contextlib.ExitStack() as locks:
            for ending in ("lock", "used"):
                lock = locks.enter_context(open(self._folder / f"{self._name}.{ending}", "w"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
            self._remove()

    def _remove(self) -> None:
        for path in (self._facts, self._pixels, self._closing):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._parts, ignore_errors=True)


def _write(path: Path, tables: Tables, metadata: dict[bytes, bytes]) -> None:
    counts = np.ascontiguousarray(tables.counts, np.int64)
    used = tables.used.replace_schema_metadata({**metadata, _COUNTS: counts.tobytes()})
    temporary = path.with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as stream:
        for table in (used, tables.rejects):
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, path)


def _mapped(pixels: Path, mode: Literal["r", "r+"] = "r") -> NDArray[np.uint8] | None:
    """Returns the pixels of a file, None where it is gone, or is cut or damaged."""
    try:
        return np.lib.format.open_memmap(pixels, mode)
    except (FileNotFoundError, ValueError):
        return None


def _read_whole(path: Path) -> Tables | None:
    """Returns what `_write` wrote, None where it is gone or damaged, as after a loss of power."""
    try:
        return _read(path)
    except (pa.ArrowInvalid, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        # Arrow's own, of what ends too early, have no number; what the system refuses has one.
        if error.errno not in (None, errno.ENOENT):
            raise
        return None


def _read(path: Path) -> Tables:
    with pa.OSFile(str(path)) as stream:
        used = pa.ipc.open_stream(stream).read_all()
        rejects = pa.ipc.open_stream(stream).read_all()
    counts = np.frombuffer(used.schema.metadata[_COUNTS], np.int64).reshape(-1, 256)
    return Tables(used.replace_schema_metadata(None), rejects, counts)
