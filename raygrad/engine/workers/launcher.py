"""What Ray's node runs in place of its own script to start a worker: has it forked, or starts it.

Run as a file, with the arguments of Ray's `setup_worker.py`. It imports nothing of Ray's, which
would take a second: it asks the fork server whose socket the environment names for a process with
its own arguments, environment, folder, streams and signals, and ends. Where nobody answers, or the
worker needs what a fork cannot have (another interpreter, a container, other variables that are
read while libraries are loaded), it becomes Ray's own script instead.
"""

import json
import os
import signal
import socket
import sys

SOCKET = "RAYGRAD_FORK_SERVER"
"""The variable with the path of the fork server's socket."""
SCRIPT = "RAYGRAD_SETUP_WORKER"
"""The variable with the path of Ray's own script."""
READ_AT_LOAD = ("PYTHON", "LD_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "OMP_", "MALLOC_")
"""Beginnings of variables that a process reads once, while it loads Python or a library."""
READ_LATER = frozenset({"PYTHONBREAKPOINT"})
"""Of these names, those that are read when they are needed; Ray sets this one as it starts."""


def read_at_load(environment: dict[str, str]) -> dict[str, str]:
    """Returns the variables that cannot be changed once what reads them has been loaded."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_LOAD) and name not in READ_LATER
    }


def forkable(arguments: list[str]) -> tuple[list[str], dict[str, str]] | None:
    """Returns the worker's arguments, its script first, and the variables that it gets besides.

    None stands for a worker that needs more than a fork of this interpreter.

    Args:
        arguments: Those of Ray's script: what it is to set up, then the worker's.
    """
    variables: dict[str, str] = {}
    worker = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--serialized-runtime-env-context":
            context = json.loads(value or "{}")
            variables = context.pop("env_vars", None) or {}
            if context.pop("py_executable", None) not in (None, sys.executable):
                return None
            if any(context.values()):
                return None
        elif name == "--language":
            if value != "PYTHON":
                return None
        else:
            worker.append(argument)
    return (worker, variables) if worker and worker[0].endswith(".py") else None


def wish(arguments: list[str], variables: dict[str, str]) -> dict[str, object]:
    """Returns what a forked process has to take over to be what this one would have become."""
    environment = {**os.environ, **variables}
    for name in (SOCKET, SCRIPT):
        environment.pop(name, None)
    return {
        "arguments": arguments,
        "environment": environment,
        "folder": os.getcwd(),
        "ignored": [
            int(number)
            for number in signal.valid_signals()
            if signal.getsignal(number) is signal.SIG_IGN
        ],
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "leads_group": os.getpgid(0) == os.getpid(),
    }


def ask(path: str, wished: dict[str, object]) -> bool:
    """Asks the fork server for a process; returns whether there is one."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.connect(path)
            socket.send_fds(server, [b"f"], [0, 1, 2])
            server.sendall(json.dumps(wished).encode() + b"\n")
            return server.recv(1) == b"y"
    except OSError:
        return False


def main() -> None:
    """Ends once the worker is there, or becomes Ray's script."""
    arguments = forkable(sys.argv[1:])
    if arguments is None or not ask(os.environ[SOCKET], wish(*arguments)):
        os.execv(sys.executable, [sys.executable, os.environ[SCRIPT], *sys.argv[1:]])


if __name__ == "__main__":
    main()
