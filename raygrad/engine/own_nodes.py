"""The processes of nodes that this process starts: waited for at their start, gone at their end."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from raygrad.engine.workers import no_agent

_GONE_WITHIN_S = 0.5
"""How long after its shutdown a node's raylet may take to be gone."""
_THERE_WITHIN_S = 120.0
"""How long after its start a node's raylet may take to be known, on a machine with much to do."""
_ASK_S = 0.05


def while_raylet_starts(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Returns Ray's question for a new node, asked until it is there or its raylet has ended.

    Args:
        get_node: Ray's own, which raises RuntimeError for a node that it does not know yet.
    """

    def found(*arguments: Any, **named: Any) -> Any:
        end_s = time.monotonic() + _THERE_WITHIN_S
        while True:
            try:
                return get_node(*arguments, **named)
            except RuntimeError:  # Ray's answer for a node that is not known
                if time.monotonic() > end_s or all(map(is_gone, _own_raylets())):
                    raise
            time.sleep(_ASK_S)

    return found


def without_agent(command: str, port_file: Callable[[str, str], str]) -> str:
    """Returns what a node runs in place of its dashboard's agent: it says that there is none.

    Args:
        command: Ray's. One that is not as expected stays, but for the parts that serve a dashboard.
        port_file: Says, of a node and a service, in which file the node reads the service's port.
    """
    arguments = shlex.split(command)
    given = dict(one.split("=", 1) for one in arguments if "=" in one)
    folder, node = given.get("--session-dir", ""), given.get("--node-id")
    if node is None or not os.path.isdir(folder):
        return command if "--minimal" in arguments else f"{command} --minimal"
    services = ("METRICS_AGENT", "METRICS_EXPORT", "DASHBOARD_AGENT_LISTEN")
    files = [os.path.join(folder, port_file(node, service)) for service in services]
    return subprocess.list2cmdline([sys.executable, no_agent.__file__, *files])


def children(*names: str) -> list[tuple[str, Any]]:
    """Returns the processes, with their names, that this one has started and that are called so."""
    import ray  # noqa: F401 - it brings its own psutil, which is found from then on

    import psutil  # isort: skip

    return [
        (name, process)
        for process in psutil.Process().children()
        for name in names
        if name in _name(process)
    ]


def _own_raylets() -> list[Any]:
    """Returns the raylets of the nodes that this process has started."""
    return [process for _, process in children("raylet")]


@contextlib.contextmanager
def agents_end_with_their_node() -> Iterator[None]:
    """Ends what a node of this process leaves behind when it ends.

    A raylet that does not end within Ray's second or so is killed, and then its two agents look for
    Ray's store, which has gone too, for a minute. A node that goes on keeps what it has.
    """
    below = {node: node.children(recursive=True) for node in _own_raylets() if node.is_running()}
    try:
        yield
    finally:
        end_s = time.monotonic() + _GONE_WITHIN_S
        for node, processes in below.items():
            while not (gone := is_gone(node)) and time.monotonic() < end_s:
                time.sleep(0.01)  # not psutil's wait, which would take the status from Ray
            if gone:
                kill(processes)


@contextlib.contextmanager
def whole_start() -> Iterator[None]:
    """Ends, where the start of an own Ray fails or is interrupted, every process of it.

    They are known by the path of Ray's package in their commands: what other threads of the driver
    start meanwhile, such as workers that load data, is theirs.
    """
    import psutil
    import ray

    driver, package = psutil.Process(), ray.__path__[0]
    before = set(driver.children())
    try:
        yield
    except BaseException:
        for process in driver.children():
            with contextlib.suppress(psutil.Error):
                if process not in before and package in " ".join(process.cmdline()):
                    process.suspend()  # a stopped process starts no other before its end
                    kill([*process.children(recursive=True), process])
        raise


def is_gone(process: Any) -> bool:
    """Tells whether a process has ended, whoever has taken its status."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def kill(processes: Iterable[Any]) -> None:
    """Kills processes, of which some may have ended by themselves."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _name(process: Any) -> str:
    import psutil

    with contextlib.suppress(psutil.Error):
        return str(process.name())
    return ""
