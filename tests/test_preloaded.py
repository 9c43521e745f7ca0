"""A command that is a fork does what one that is started anew does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded

ROOT = Path(__file__).parent.parent

TELLS = """
import json, os, signal, sys, time
before = "ray" in sys.modules
print(json.dumps({
    "name": __name__, "arguments": sys.argv, "folder": os.getcwd(), "mine": os.environ["MINE"],
    "found": sys.path[0], "ray": before, "read": sys.stdin.read(),
    "signals": [signal.getsignal(n) == h for n, h in (
        (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL))],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}))
print("err", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def environment(tmp_path):
    """Variables with which a command may be a fork, and a folder in its path."""
    (tmp_path / "told.py").write_text(TELLS)
    given = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "MINE": "two",
    }
    return {**os.environ, **given}


@pytest.mark.parametrize("arguments", [["-c", TELLS, "a", "b"], ["-m", "told", "a"]])
def test_it_says_what_a_command_says(arguments, environment, tmp_path, sigint_heard):
    ran = preloaded.ran(arguments, environment, tmp_path, 60)
    anew = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert ran.stdout.replace('["told"', f'["{tmp_path}/told.py"') == anew.stdout
    assert (ran.stderr, ran.returncode) == (anew.stderr, anew.returncode)


def test_it_is_a_fork_where_it_may_be_and_else_started_anew(environment, tmp_path):
    code = "import os; print('preloading' in open(f'/proc/{os.getppid()}/cmdline').read())"
    for changed, is_fork in (({}, "True\n"), ({"OMP_NUM_THREADS": "2"}, "False\n")):
        ran = preloaded.ran(["-c", code], {**environment, **changed}, tmp_path, 60)
        assert ran.stdout == is_fork, ran.stderr


def test_signals_end_it_as_they_end_a_command(environment, tmp_path, sigint_heard):
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        code = "import time; print('here', flush=True); time.sleep(60)"
        command = preloaded.started(["-c", code], environment, tmp_path)
        assert command.stdout.readline() == "here\n"
        command.send_signal(number)
        assert command.wait(30) == -number


def test_its_fork_server_is_a_fork_too_and_serves(environment, tmp_path):
    code = (
        "import os\n"
        "from raygrad.engine.workers import starting\n"
        "one = starting.start()\n"
        "print(type(one._process).__name__, starting.start() is one, os.path.exists(one.path))\n"
        "starting.close()\n"
        "print(one._process.poll(), os.path.exists(one.path))\n"
    )
    ran = preloaded.ran(["-c", code], environment, tmp_path, 60)
    assert ran.stdout == "Spare True True\n0 False\n", ran.stderr
