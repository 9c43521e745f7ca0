"""The processes below this one, found in /proc: a killed parent's children are adopted by it."""

import ctypes
import os
import signal
from collections.abc import Collection, Mapping
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS, _MS_PRIVATE, _MS_REC = 0x20000, 0x40000, 0x4000


def living(own: Collection[int]) -> dict[int, str]:
    """Returns the command lines of the living processes below this one, by process id.

    Args:
        own: Processes that are left out, and all below them.
    """
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue  # it has just ended
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found: dict[int, str] = {}
    below = [os.getpid()]
    while below:
        below = [child for child, parent in parents.items() if parent in below and child not in own]
        found |= {pid: _command(pid) for pid in below}
    return found


def bury(own: Collection[int]) -> None:
    """Takes the status of every child of this process that has ended and was adopted."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in own:
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z" and int(parent) == os.getpid():
                    os.waitpid(int(entry.name), os.WNOHANG)
            except (OSError, ChildProcessError):
                continue


def end(processes: Mapping[int, str]) -> None:
    """Ends processes at once."""
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class SmallDisk:
    """A file system of its own in a folder, which can be filled; no other program sees it.

    Linux, as root: it is mounted in a mount namespace of this process and those below it.

    Args:
        folder: Where it is.
        size_bytes: How much it holds.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        libc = ctypes.CDLL(None, use_errno=True)
        for done in (
            libc.unshare(_CLONE_NEWNS),
            libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None),
            libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size_bytes}".encode()),
        ):
            if done != 0:
                raise OSError(ctypes.get_errno(), "a disk needs the right to mount it", str(folder))

    def fill(self) -> None:
        """Leaves no room."""
        with open(self.folder / "filler", "ab") as filler:
            free = os.statvfs(self.folder)
            os.posix_fallocate(filler.fileno(), 0, max(free.f_bavail * free.f_bsize, 1))

    def empty(self) -> None:
        """Gives the room back."""
        (self.folder / "filler").unlink(missing_ok=True)

    def unmount(self) -> None:
        """Takes it away, with all that is on it."""
        ctypes.CDLL(None).umount2(bytes(self.folder), 2)  # also while a process has a file open


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""
