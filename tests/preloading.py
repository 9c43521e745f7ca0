"""The process that commands are forks of; `preloaded.py` starts it, and asks it for them."""

import contextlib
import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

from raygrad.engine.workers import fork_server, starting
from tests.preloaded import of_load

Task = Callable[[], None]
"""What a fork goes on with, once it has left the loops of the process that it is a fork of."""


def serve(listener: socket.socket, parent: int) -> Task | None:
    """Forks a command for each who asks, and tells how it ended; None once the parent has gone."""
    woken, wakes = socket.socketpair()
    for one in (woken, wakes):
        one.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    asking: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, woken, parent], [], [])
        if parent in ready:
            return None
        if woken in ready:
            woken.recv(64)
            for pid, status in ended():
                with asking.pop(pid) as one, contextlib.suppress(OSError):
                    one.sendall(f"{status}\n".encode())
        if listener in ready:
            connection, _ = listener.accept()
            wish = fork_server.hear(connection)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for one in (listener, woken, wakes, connection, *asking.values()):
                    one.close()
                os.close(parent)
                return become(wish)
            for stream in wish["streams"]:
                os.close(stream)
            asking[pid] = connection
            connection.sendall(f"{pid}\n".encode())


def ended() -> list[tuple[int, int]]:
    """Returns the children that have ended, with their statuses."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


def become(wish: fork_server.Wish) -> Task:
    """Makes this process what was asked for; returns the command that is left to be run."""
    fork_server.take_over(wish)
    task = spare_fork_server()
    if task is not None:
        return task
    how, what, *rest = wish["arguments"]
    path = wish["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:1] = [wish["folder"] if how == "-m" else "", *filter(None, path)]
    if how == "-m":
        sys.argv = [what, *rest]
        return functools.partial(run_module, what)
    sys.argv = ["-c", *rest]
    return functools.partial(run_code, what)


def run_module(name: str) -> None:
    """Runs a module as `python -m` does."""
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_code(code: str) -> None:
    """Runs code as `python -c` does."""
    main_module = ModuleType("__main__")
    sys.modules["__main__"] = main_module
    exec(compile(code, "<string>", "exec"), vars(main_module))


def spare_fork_server() -> Task | None:
    """Forks a child of the command that its Ray's fork server becomes, should it start one.

    Returns:
        In the child, the fork server; it ends at once where the command ends without asking.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        spare = Spare(pid, ours, of_load(dict(os.environ)))
        starting.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
            Popen=spare.start, DEVNULL=subprocess.DEVNULL
        )
        return None
    ours.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    select.select([theirs], [], [])
    try:
        wish = fork_server.hear(theirs)
    except (OSError, ValueError):
        os._exit(0)
    theirs.close()
    os.environ.clear()
    os.environ.update(wish["environment"])
    listener, parent, nothing = wish["streams"]
    for at in range(3):
        os.dup2(nothing, at)
    sys.argv = [fork_server.__file__, wish["path"], str(listener), str(parent)]
    return functools.partial(run_module, fork_server.__name__)


class Spare:
    """The child that becomes the fork server, in the place of the process of `starting.py`."""

    def __init__(self, pid: int, asking: socket.socket, read: dict[str, str]) -> None:
        self.pid, self._asking, self._read = pid, asking, read
        self._is_over = False

    def start(self, command, *, pass_fds, env, **streams):
        """Stands in for `Popen`; what the child cannot be is started as ever."""
        if self._asking is None or of_load(env) != self._read:
            return subprocess.Popen(command, pass_fds=pass_fds, env=env, **streams)
        *_, path, _, _ = command
        nothing = os.open(os.devnull, os.O_RDWR)
        with self._asking as asking:
            socket.send_fds(asking, [b"f"], [*pass_fds, nothing])
            asking.sendall(json.dumps({"path": path, "environment": env}).encode())
            asking.sendall(b"\n")
        self._asking = None
        os.close(nothing)
        return self

    def poll(self) -> int | None:
        """Returns 0 once it has ended."""
        return 0 if self._is_gone(os.WNOHANG) else None

    def wait(self) -> None:
        """Returns once it has ended."""
        self._is_gone(0)

    def kill(self) -> None:
        """Ends it."""
        if not self._is_gone(os.WNOHANG):
            os.kill(self.pid, signal.SIGKILL)

    def _is_gone(self, how: int) -> bool:
        if not self._is_over:
            self._is_over = os.waitpid(self.pid, how)[0] == self.pid
        return self._is_over


def main() -> None:
    """Loads what commands import, and serves; in a fork, goes on as what it has become."""
    # Nobody has asked to be heard by it: it ends with who started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fork_server.load((*fork_server.LOADED, "raygrad.cli.command", "raygrad.report"))
    assert "ray" not in sys.modules, "it would have read this process's variables"
    listening, parent = map(int, sys.argv[1:])
    with socket.socket(fileno=listening) as listener:
        task = serve(listener, parent)
    if task is not None:
        task()


if __name__ == "__main__":
    main()
