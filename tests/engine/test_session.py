"""The Ray that a command starts or joins."""

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from raygrad.engine import own_nodes, ray_private
from raygrad.engine.session import ensure_ray
from raygrad.engine.workers import no_agent, starting
from raygrad.errors import ResourceError

psutil: Any = importlib.import_module("psutil")  # Ray brings its own, and only then is it found


def test_an_own_ray_is_started_with_one_heap_a_process(monkeypatch):
    """Trials run in a thread each, and each thread's own heap would keep what its trial freed."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    seen = []
    monkeypatch.setattr(ray, "init", lambda **_: seen.append(os.environ["MALLOC_ARENA_MAX"]))
    nobody = SimpleNamespace(remote=lambda: None)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: nobody)
    monkeypatch.setattr(starting, "_servers", [])  # not the one of the session's Ray
    ensure_ray()
    starting.close()
    assert seen == ["1"]


def test_sigterm_is_the_commands_own_while_ray_runs_and_after_it():
    """Ray's core sets the signal to the system's default when it ends, which Python cannot see."""
    code = (
        "import os, signal\n"
        "from raygrad.engine.session import ensure_ray, session\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True))\n"
        "with session():\n"
        "    ensure_ray()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "heard\nheard\n")


def test_a_ray_that_does_not_start_is_one_clear_error(monkeypatch):
    """Ray raises a plain Exception for it, which would be a traceback to its user."""

    def fail(**_):
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ResourceError, match="start on this machine, got 'The current node timed"):
        ensure_ray()


STARTING = (
    "import signal, time, ray._private.worker as worker\n"
    "from raygrad.engine.session import ensure_ray\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "def connect(*_, **__):\n"
    "    time.sleep(3)  # the agents watch over their raylet by then\n"
    "    print('node is up', flush=True)\n"
    "    time.sleep(60)\n"
    "worker.connect = connect\n"
    "ensure_ray()\n"
)


def is_agent(command):
    """Of runtime environments, or what stands in the dashboard's agent's place."""
    return command[:1] == ["ray::RuntimeEnvAgent"] or no_agent.__file__ in command


def test_an_interrupted_start_leaves_no_process_however_slow_its_node_is():
    """A raylet that was slow to end was killed; its agents looked for Ray's store for a minute."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-c", STARTING],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"node is up\n"
        began = psutil.Process(driver.pid).children(recursive=True)
        agents = [process for process in began if is_agent(process.cmdline())]
        [raylet] = {agent.parent() for agent in agents}
        for process in (raylet, *agents):
            process.suspend()
        driver.send_signal(signal.SIGINT)
        assert driver.wait(30) != 0
    assert len(agents) == 2
    for agent in agents:
        if agent.is_running():
            agent.resume()
    _, left = psutil.wait_procs(began, timeout=15)
    assert left == []


def test_a_start_that_fails_ends_nothing_that_is_not_its_own():
    """Another thread of the driver may start a process in the same seconds."""
    with contextlib.suppress(KeyboardInterrupt), own_nodes.whole_start():
        other = subprocess.Popen(["sleep", "60"])
        own = subprocess.Popen(["sh", "-c", "sleep 60; true", ray.__path__[0]])
        raise KeyboardInterrupt
    try:
        assert own.wait(15) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_what_a_killed_node_leaves_ends_and_another_nodes_processes_go_on(tmp_path, monkeypatch):
    """Where Ray's shutdown kills a slow raylet, its agents would stay for a minute."""
    raylet = shutil.copy(str(shutil.which("sh")), tmp_path / "raylet")
    killed, other = (subprocess.Popen([raylet, "-c", "sleep 60 & wait"]) for _ in range(2))
    monkeypatch.setattr(ray, "shutdown", killed.kill)
    try:
        while not (agents := psutil.Process(killed.pid).children()):
            time.sleep(0.01)
        while not (others := psutil.Process(other.pid).children()):
            time.sleep(0.01)
        ray_private.shutdown()
        _, left = psutil.wait_procs(agents, timeout=15)
        assert left == []
        assert all(process.is_running() for process in others)
    finally:
        for process in (killed, other):
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
            process.wait()
