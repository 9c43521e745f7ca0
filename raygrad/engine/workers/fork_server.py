"""A process that has loaded what workers need, and forks one when it is asked.

A worker of Ray imports Ray twice, then torch and raygrad: some five CPU seconds. A fork of a
process that has done so takes some hundredths. Nothing but modules is loaded before a fork: no
device is opened and no pool of threads started, so that a forked worker is as one that has just
imported them.

There are two layers. The first has loaded torch and whatever knows nothing of Ray. Ray reads its
variables once, while it is imported, and some differ between a node's workers (the job's number):
so the first forks a second server for each set of them, which imports Ray, and forks workers.

Ray names objects, tasks and actors by a generator that is seeded once a process. Had it been used
before a fork, workers would draw the same names: a worker could be given another's object, or
crash on a task that it seems to have twice. So nothing draws from it before, and a second server
looks whether two forks of it draw the same before it forks the first worker.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from raygrad.engine.ray_private import (
    classes_named_by_the_system,
    drawn_id,
    threads_as_ray_says,
)
from raygrad.engine.workers.launcher import read_at_load

LOADED = (
    "torch",
    "pandas",
    "pyarrow.parquet",
    "PIL.Image",
    "raygrad.scoring",
    "raygrad.data.reading",
    "raygrad.training.retraining",
    "raygrad.training.outside",
)
"""What the first layer loads: nothing of Ray."""
LOADED_WITH_RAY = ("ray", "ray.data", "raygrad.engine.score.actor")
"""What the second layer loads."""
READ_AT_USE = frozenset(
    {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC"}
)
"""Ray's variables that differ between the workers of one job and are read when they are needed, so
that a fork may have others than the process it is a fork of had as it imported Ray."""
_HEARD_WITHIN_S = 10.0

Wish = dict[str, Any]
"""What a process is asked to become, as `launcher.wish` says it, with its streams; or modules that
are to be loaded."""


def load(modules: Iterable[str]) -> None:
    """Imports modules; of one that cannot be imported, the worker that needs it will tell."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a forked worker's collector leaves the pages alone that it shares


def hear(connection: socket.socket) -> Wish:
    """Reads what is wished.

    Raises:
        OSError: It went away, or does not say it in time.
        ValueError: It is no wish.
    """
    connection.settimeout(_HEARD_WITHIN_S)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    heard = b""
    while not heard.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            for stream in streams:
                os.close(stream)
            raise OSError("the one who asked went away")
        heard += more
    return {**json.loads(heard), "streams": streams}


class Forked(BaseException):
    """Leaves the loops of the server that a forked worker was; it carries what it becomes."""

    def __init__(self, wish: Wish) -> None:
        super().__init__()
        self.wish = wish


class FirstLayer:
    """Hears every wish, and hands it on to the second server of its set of Ray's variables."""

    def __init__(self, listener: socket.socket, parent: int) -> None:
        self._listener = listener
        self._parent = parent
        self._own = {"OMP_NUM_THREADS": "1", **read_at_load(dict(os.environ))}
        self._second: dict[str, socket.socket] = {}
        self._with_ray = LOADED_WITH_RAY

    def serve(self) -> None:
        """Serves until the parent's end of a pipe is closed.

        Raises:
            Forked: In a worker that was forked, with its wish.
        """
        while True:
            ready, _, _ = select.select([self._listener.fileno(), self._parent], [], [])
            if self._parent in ready:
                return
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                wish = hear(connection)
                if "load" in wish:
                    self._load(wish)
                else:
                    connection.sendall(b"y" if self._hand_on(wish) else b"n")

    def _load(self, wish: Wish) -> None:
        """Loads more, for the workers from now on: in second servers, where there are any."""
        if not self._second:
            load(wish["load"])
        more = (*wish["load"], *wish["load_with_ray"])
        self._with_ray = (*LOADED_WITH_RAY, *more)
        for name in list(self._second):
            self._answer_of(name, {"load": more}, [])

    def _hand_on(self, wish: Wish) -> bool:
        """Returns whether there is a worker now."""
        streams, environment = wish.pop("streams"), wish["environment"]
        try:
            # Threads that nobody has bounded are bounded by Ray, in `threads_as_ray_says`.
            if {"OMP_NUM_THREADS": "1", **read_at_load(environment)} != self._own:
                return False
            return self._answer_of(self._second_for(environment), wish, streams) == b"y"
        finally:
            for stream in streams:
                os.close(stream)

    def _answer_of(self, name: str, wish: Wish, streams: list[int]) -> bytes:
        """Returns what a second server answers; one that answers nothing is asked no more."""
        server = self._second[name]
        try:
            socket.send_fds(server, [b"f"], streams)
            server.sendall(json.dumps(wish).encode() + b"\n")
            answer = server.recv(1)
        except OSError:
            answer = b""
        if not answer:
            self._second.pop(name).close()
        return answer

    def _second_for(self, environment: dict[str, str]) -> str:
        """Returns the name of the second server for an environment, which is started if need be."""
        of_ray = {
            name: value
            for name, value in environment.items()
            if name.startswith("RAY_") and name not in READ_AT_USE
        }
        name = json.dumps(of_ray, sort_keys=True)
        if name not in self._second:
            ours, theirs = socket.socketpair()
            if os.fork() == 0:
                for one in (self._listener, ours, *self._second.values()):
                    one.close()
                os.close(self._parent)
                second_layer(theirs, environment, self._with_ray)
            theirs.close()
            self._second[name] = ours
        return name


def second_layer(
    asking: socket.socket, environment: dict[str, str], modules: Iterable[str]
) -> NoReturn:
    """Imports Ray with a set of its variables, and forks a worker for each wish.

    Where forks would share Ray's names, every wish is refused, and workers begin as Ray starts
    them. Ends this process once the first layer has gone.

    Raises:
        Forked: In a worker that was forked, with its wish.
    """
    os.environ.clear()
    os.environ.update(environment)
    with classes_named_by_the_system():
        load(modules)
    is_sound = forks_draw_their_own()
    with contextlib.suppress(OSError, ValueError):
        while select.select([asking], [], [])[0]:
            wish = hear(asking)
            if "load" in wish:
                with classes_named_by_the_system():
                    load(wish["load"])
                is_sound = is_sound and forks_draw_their_own()
            elif is_sound and os.fork() == 0:
                asking.close()
                raise Forked(wish)
            for stream in wish["streams"]:
                os.close(stream)
            asking.sendall(b"y" if is_sound else b"n")
    os._exit(0)


def forks_draw_their_own() -> bool:
    """Tells whether two forks of this process are given different names by Ray's generator."""
    drawn = [_drawn_in_fork() for _ in range(2)]
    return all(drawn) and drawn[0] != drawn[1]


def _drawn_in_fork() -> bytes:
    """Returns what a fork of this process draws; empty where it could not."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, drawn_id())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as drawn:
        return drawn.read()


def become(wish: Wish) -> None:
    """Makes this forked process what the asking one would have become."""
    if wish["leads_group"]:
        os.setpgid(0, 0)
    take_over(wish)
    os.setpriority(os.PRIO_PROCESS, 0, wish["nice"])
    signal.pthread_sigmask(signal.SIG_SETMASK, wish["blocked"])
    sys.argv = wish["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    threads_as_ray_says()


def take_over(wish: Wish) -> None:
    """Gives this forked process the asking one's streams, variables, folder and signals."""
    for at, stream in enumerate(wish["streams"]):
        os.dup2(stream, at)
        os.close(stream)
    os.environ.clear()
    os.environ.update(wish["environment"])
    os.chdir(wish["folder"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in wish["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own generator does so by itself


def main() -> None:
    """Serves at a socket for as long as the parent holds a pipe; in a forked worker, runs it."""
    path, listening, parent = sys.argv[1:]
    with socket.socket(fileno=int(listening)) as listener:
        # Forked workers are Ray's to watch; the system takes what they leave.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        # It ends with its driver, also where a signal is sent to both.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        load(LOADED)
        try:
            FirstLayer(listener, int(parent)).serve()
        except Forked as forked:
            wish = forked.wish
        else:
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)  # a killed driver leaves it
            return
    become(wish)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
