"""The suite ends by itself: hanging tests fail, and signals reach the tests that wait for them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import DEAR, SEED

ROOT = Path(__file__).parent.parent
IMPORTED_WITH = torch.initial_seed()


def pytest_in(folder, code, *options, ignored=()):
    """Runs pytest on one file of a test's own; `ignored` signals are so from the start."""
    (folder / "test_own.py").write_text(code)

    def ignore():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        *options,
        "test_own.py",
    ]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=ignore,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_test_that_hangs_fails_within_its_limit_and_shows_where(tmp_path):
    code = """
import threading

def test_hangs():
    threading.Event().wait()

def test_next():
    pass
"""
    ran = pytest_in(tmp_path, code, "-o", "timeout=1")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "1 failed, 1 passed" in ran.stdout
    assert "threading.Event().wait()" in ran.stdout, "the stack names the line"


def test_ctrl_c_is_heard_where_the_shell_ignores_it(tmp_path):
    """In the test itself and in a process that it starts."""
    code = """
import os, signal, subprocess, sys
import pytest

def test_hears(sigint_heard):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    child = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, check=False)
    assert b"KeyboardInterrupt" in done.stderr
"""
    ran = pytest_in(tmp_path, code, ignored=[signal.SIGINT])
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_suite_has_a_limit_for_every_test(request):
    assert 0 < float(request.config.getini("timeout")) <= 300


def test_tests_of_a_file_that_share_what_is_costly_stay_on_one_worker(request):
    """Else each worker makes the file's fixtures anew, and tests that go on from others fail."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs all of it")
    shared = [
        item
        for item in request.session.items
        if item.path.parent.name == "pipeline" and not item.get_closest_marker("long")
    ]
    assert [item.nodeid for item in shared if "@" not in item.nodeid] == []


def test_what_takes_longest_begins_first_and_is_there(request):
    """A long test that is begun last is waited for by all other workers."""
    items = request.session.items
    seconds = [mark.kwargs["seconds"] for item in items for mark in item.iter_markers("long")]
    long = [item for item in items if item.get_closest_marker("long")]
    assert items[: len(long)] == long
    assert seconds == sorted(seconds, reverse=True)
    assert [name for name in DEAR if not (ROOT / "tests" / name).exists()] == []


def test_what_torch_draws_is_the_same_in_every_run():
    """In a test and in its module: else a rare draw fails a run that nobody can have again."""
    assert IMPORTED_WITH == torch.initial_seed() == SEED
