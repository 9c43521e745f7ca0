"""Ways to take an epoch pay for their own batches alone: what is beside one rests meanwhile."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.beside import Timed

BUSY = "while True: pass"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def busy():
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    yield process.pid
    process.kill()
    process.wait()


def test_what_is_beside_a_way_rests_while_another_is_timed(busy):
    """And its CPU time is counted while it does not."""
    states = []

    def run() -> None:
        states.append(state(busy))
        time.sleep(0.3)

    way = Timed(run, [busy])
    way()
    time.sleep(0.05)
    assert state(busy) == "T"
    way()
    time.sleep(0.05)
    assert state(busy) == "T"
    assert "T" not in states
    assert all(beside_s > 0 for _, beside_s in way.cpu_s)
    way.go_on()
    time.sleep(0.05)
    assert state(busy) == "R"
