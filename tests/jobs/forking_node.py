"""`ray start` of a node whose workers are forks: run as a program, with that command's arguments.

A worker that begins as Ray starts it imports torch and Ray, five CPU seconds, and a job has a dozen
of them. Here they are forks of a process that has done so (`raygrad.engine.workers`), also those of
a job with a working directory, which the fork server leaves to Ray: it has loaded raygrad from this
checkout, of which a job's directory is a copy.
"""

import json
import os
import shlex
import sys

from raygrad.engine.workers import launcher

SEPARATELY = "--serialized-runtime-env-context="


def in_working_dir(arguments: list[str]) -> list[str]:
    """Enters the working directory that a worker is to have; returns what else it is to have.

    Ray says it by a `cd` before the worker's command and by PYTHONPATH; what a driver has in its
    path, its workers are told besides.
    """
    out = []
    for argument in arguments:
        if argument.startswith(SEPARATELY):
            context = json.loads(argument.removeprefix(SEPARATELY) or "{}")
            prefix = context.get("command_prefix") or []
            if len(prefix) == 3 and (prefix[0], prefix[2]) == ("cd", "&&"):
                os.chdir(shlex.split(prefix[1])[0])
                context["command_prefix"] = []
                (context.get("env_vars") or {}).pop("PYTHONPATH", None)
            argument = SEPARATELY + json.dumps(context)
        out.append(argument)
    return out


def launch() -> None:
    """What the node runs for each worker, as `launcher.main`, but in the worker's directory."""
    asked = sys.argv[1:]
    arguments = launcher.forkable(in_working_dir(asked))
    if arguments is None or not launcher.ask(
        os.environ[launcher.SOCKET], launcher.wish(*arguments)
    ):
        os.execv(sys.executable, [sys.executable, os.environ[launcher.SCRIPT], *asked])


def main() -> None:
    """Starts the node, and lasts as long as it (`--block`)."""
    import ray
    from ray._private.node import Node
    from ray.scripts.scripts import main as command

    from raygrad.engine.workers.starting import forked_workers

    script = os.path.join(ray.__path__[0], "_private", "workers", "setup_worker.py")
    start_raylet = Node.start_raylet

    def forking(node, *arguments, **named):
        node._ray_params.setup_worker_path = __file__
        start_raylet(node, *arguments, **named)

    Node.start_raylet = forking
    with forked_workers(script):
        command()


if __name__ == "__main__":
    launch() if launcher.SOCKET in os.environ else main()
