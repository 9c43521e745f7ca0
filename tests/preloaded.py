"""Commands of Python as forks of a process that has loaded what they import.

A command that is started anew imports torch, and so does the server that its Ray's workers are
forked from: four CPU seconds each, for every start. Here both are forks of one process a session,
which has loaded torch and raygrad, nothing of Ray, and has opened nothing. Whatever else they do is
what `python -m` and `python -c` would do. Where a command's variables are others than those that
were read while torch was loaded, it is started as ever.

`jobs/test_secrets.py` runs a whole study by a command that is started as a user starts it.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from raygrad.engine.workers.launcher import read_at_load

ROOT = Path(__file__).parents[1]
EACH_HAS_ITS_OWN = (
    "PYTHONPATH",
    "MALLOC_ARENA_MAX",
    # Set by scikit-learn while it is imported, for an OpenMP that is not torch's.
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
)
"""Read at load too, but set in a fork (the path), or without a bearing on a command."""


class Command:
    """A command that runs, as `subprocess.Popen` has it."""

    def __init__(self, pid: int, told: socket.socket, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._told = told

    def wait(self, timeout: float) -> int:
        """Returns its status: of an end by a signal, the negative number."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            with self._told, self._told.makefile() as said:
                self.returncode = os.waitstatus_to_exitcode(int(said.readline()))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it is still there."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        if self.returncode is None:
            os.kill(self.pid, number)


class Preloaded:
    """The process that commands are forks of; it ends with this one.

    Args:
        asked: The variables of the first command: this process's own change as it imports.
    """

    def __init__(self, asked: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="raygrad-test-")
        self._path = os.path.join(self._folder.name, "socket")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path)
        listener.listen(8)
        ends, self._kept = os.pipe()
        without_ray = {k: v for k, v in asked.items() if not k.startswith("RAY_")}
        given = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(ROOT)}
        environment = {**without_ray, **given}
        self._read = of_load(environment)
        fds = [listener.fileno(), ends]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloading", *map(str, fds)],
            pass_fds=fds,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(ends)
        listener.close()
        atexit.register(self.close)

    def close(self) -> None:
        """Ends it; commands that run go on."""
        if self._process.poll() is None:
            os.close(self._kept)
            self._process.wait()
            self._folder.cleanup()

    def can_be(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with these variables would have loaded torch as this process did."""
        return self._process.poll() is None and of_load(environment) == self._read

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: str
    ) -> Command:
        """Forks a command; its arguments are those of Python, from `-m` or `-c` on."""
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asking.connect(self._path)
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        wish = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": folder,
            "ignored": [int(n) for n in (signal.SIGINT, signal.SIGTERM) if is_ignored(n)],
        }
        socket.send_fds(asking, [b"f"], [nothing, to_out, to_err])
        asking.sendall(json.dumps(wish).encode() + b"\n")
        for one in (nothing, to_out, to_err):
            os.close(one)
        pid = b""
        while not pid.endswith(b"\n"):
            more = asking.recv(1)
            assert more, "the process that commands are forks of must answer"
            pid += more
        return Command(int(pid), asking, os.fdopen(out), os.fdopen(err))


def is_ignored(number: int) -> bool:
    """Returns whether a child of this process would ignore a signal."""
    return signal.getsignal(number) is signal.SIG_IGN


def of_load(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that a fork cannot have otherwise than the process it is a fork of."""
    read = read_at_load(dict(environment))
    return {name: value for name, value in read.items() if name not in EACH_HAS_ITS_OWN}


_sessions: list[Preloaded] = []


def started(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | str
) -> "Command | subprocess.Popen[str]":
    """Starts `python ARGUMENTS`; what it says can be read from `stdout` and `stderr`."""
    if not _sessions:
        _sessions.append(Preloaded(environment))
    if _sessions[0].can_be(environment):
        return _sessions[0].start(arguments, environment, str(folder))
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


def ran(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path | str, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Runs `python ARGUMENTS` to its end, or kills it after a time."""
    command = started(arguments, environment, folder)
    said = {command.stdout: b"", command.stderr: b""}
    left, end_s = set(said), time.monotonic() + timeout_s
    while left:
        ready, _, _ = select.select(list(left), [], [], max(0.0, end_s - time.monotonic()))
        if not ready:
            command.send_signal(signal.SIGKILL)
            break
        for one in ready:
            more = os.read(one.fileno(), 1 << 16)
            said[one] += more
            if not more:
                left.discard(one)
    status = command.wait(30)
    out, err = (said[one].decode() for one in (command.stdout, command.stderr))
    assert not left, f"it must end within {timeout_s} s: {err}"
    return subprocess.CompletedProcess(arguments, status, out, err)
