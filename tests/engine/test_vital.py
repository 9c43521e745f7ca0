"""What a Ray cannot do without is told of when it goes: Ray ends the command without a word."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from raygrad.engine import own_nodes, vital
from raygrad.errors import ResourceError

LOST = """
import os, signal, sys
import ray
from raygrad.engine import own_nodes
from raygrad.engine.session import ensure_ray, session
with session():
    ensure_ray()
    for _, process in own_nodes.children(sys.argv[1]):
        os.kill(process.pid, signal.SIGKILL)
    while True:
        ray.get(ray.remote(num_cpus=0)(lambda: 0).remote())
"""


@pytest.fixture
def control_store(tmp_path):
    """A process that looks like an own Ray's control store, watched."""
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "gcs_server")
    process = subprocess.Popen([program, "60"])
    end_s = time.monotonic() + 30
    while not own_nodes.children("gcs_server") and time.monotonic() < end_s:
        time.sleep(0.01)
    yield process
    vital.unwatch()
    process.kill()
    process.wait()


def heard(caplog, within_s):
    end_s = time.monotonic() + within_s
    while not caplog.text and time.monotonic() < end_s:
        time.sleep(0.05)
    return caplog.text


def test_its_end_is_said_with_what_to_do(control_store, caplog):
    vital.watch_own_ray(lambda: True)
    control_store.kill()
    assert "got the end of its gcs_server (killed" in heard(caplog, 20)
    assert "run the same line again" in caplog.text


@pytest.mark.parametrize("by_raygrad", [True, False])
def test_nothing_is_said_of_one_that_is_shut_down(control_store, caplog, by_raygrad):
    """By raygrad, or by a user's own `ray.shutdown()`."""
    vital.watch_own_ray(lambda: by_raygrad)
    if by_raygrad:
        vital.unwatch()
    control_store.kill()
    assert heard(caplog, 2.5) == ""


def test_a_joined_ray_that_answers_no_more_is_told_of_and_so_is_its_return(caplog, monkeypatch):
    """After several questions in a row; one answer that is late on a busy head is nothing."""
    answers = iter([True, False, True, False, False, False, False, True])
    asked = []

    def check(address):
        asked.append(address)
        if not next(answers, True):
            raise ResourceError("nobody")

    monkeypatch.setattr(vital, "check_answers", check)
    monkeypatch.setattr(vital, "_ASK_S", 0.01)
    caplog.set_level("WARNING", "raygrad")
    vital.watch_joined_ray("head:6379", lambda: True)
    end_s = time.monotonic() + 20
    while len(asked) < 10 and time.monotonic() < end_s:
        time.sleep(0.01)
    vital.unwatch()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("the Ray at head:6379 must answer as long as the command runs")
    assert said[1] == "the Ray at head:6379 answers again"


def test_a_command_whose_raylet_is_killed_says_so_before_ray_ends_it():
    """Out of compiled code, with status 1."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", LOST, "raylet"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert "got the end of its raylet" in ended.stderr, ended
    assert ended.returncode == 1
