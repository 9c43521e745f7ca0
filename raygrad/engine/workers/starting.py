"""The driver's side: a fork server for the nodes that this process starts, and their launcher."""

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from raygrad.engine.workers import fork_server, launcher

OFF = "RAYGRAD_NO_FORK"
"""The variable that, set to anything, has every worker started as Ray starts it."""

FOR_TRAINING = ("torch._dynamo",)
"""What a process that trains imports besides: torch's optimisers import its compiler when they are
made, which takes some two CPU seconds."""
FOR_TRAINING_WITH_RAY = ("ray.train.torch", "raygrad.engine.sweep.trial_process")


class ForkServer:
    """A fork server that lives as long as this process, or until it is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="raygrad-")  # for this user's eyes alone
        self.path = os.path.join(self._folder, "socket")
        # Who asks before it listens is heard when it does.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(64)
        ends, self._kept = os.pipe()
        self._loads_training = False
        self._driver = os.getpid()
        self._read_at_load = launcher.read_at_load(dict(os.environ))
        # What is loaded is loaded as a worker would that Ray gives one core.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        given = [listener.fileno(), ends]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", fork_server.__name__, self.path, *map(str, given)],
                pass_fds=given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        finally:
            os.close(ends)
            listener.close()

    @property
    def is_of_now(self) -> bool:
        """Whether a worker of this process as it is now could be a fork of it."""
        return self.is_alive and self._read_at_load == launcher.read_at_load(dict(os.environ))

    @property
    def is_alive(self) -> bool:
        """Whether it still serves this process, which may itself be a fork."""
        return os.getpid() == self._driver and self._process.poll() is None

    def load_for_training(self) -> None:
        """Has what training needs loaded for the workers that are started from now on."""
        if self._loads_training:
            return
        self._loads_training = True
        wish = {"load": FOR_TRAINING, "load_with_ray": FOR_TRAINING_WITH_RAY}
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one,
        ):
            one.connect(self.path)
            one.sendall(b"f" + json.dumps(wish).encode() + b"\n")

    def close(self) -> None:
        """Ends it. Workers that it has forked are Ray's, and end with their node."""
        if os.getpid() != self._driver:
            return
        with contextlib.suppress(OSError):
            os.close(self._kept)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


_servers: list[ForkServer] = []
"""The one that serves, if any."""


def close() -> None:
    """Ends this process's fork server, if there is one."""
    while _servers:
        _servers.pop().close()


def start() -> ForkServer | None:
    """Starts the fork server where there is none, so that it loads while other things begin.

    Returns:
        None where this system cannot fork a process that has loaded so much, or must not.
    """
    if sys.platform != "linux" or os.environ.get(OFF):
        return None
    if _servers and not _servers[0].is_of_now:
        close()
    if not _servers:
        _servers.append(ForkServer())
    return _servers[0]


def load_for_training() -> None:
    """Has the own fork server, if there is one, load what a stage needs that trains."""
    if _servers and _servers[0].is_alive:
        _servers[0].load_for_training()


@contextlib.contextmanager
def forked_workers(script: str) -> Iterator[str | None]:
    """Nodes that are started in the context start their workers by forks.

    Args:
        script: The path of Ray's own script, for workers that no fork can be.

    Yields:
        The path of what they run in place of Ray's own script; None where they cannot fork.
    """
    server = start()
    if server is None:
        yield None
        return
    set_here = {launcher.SOCKET: server.path, launcher.SCRIPT: script}
    os.environ.update(set_here)
    try:
        yield launcher.__file__
    finally:
        for name in set_here:
            os.environ.pop(name, None)


atexit.register(close)
