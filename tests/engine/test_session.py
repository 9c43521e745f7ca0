"""The Ray that a command starts or joins."""

import os
import subprocess
import sys

import pytest
import ray

from raygrad.engine.session import ensure_ray
from raygrad.errors import ResourceError


def test_an_own_ray_is_started_with_one_heap_a_process(monkeypatch):
    """Trials run in a thread each, and each thread's own heap would keep what its trial freed."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    seen = []
    monkeypatch.setattr(ray, "init", lambda **_: seen.append(os.environ["MALLOC_ARENA_MAX"]))
    ensure_ray()
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
