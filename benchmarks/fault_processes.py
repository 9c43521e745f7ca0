"""The processes below this one, found in /proc: a killed parent's children are adopted by it."""

import os
import signal
from collections.abc import Collection, Mapping
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


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


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""
