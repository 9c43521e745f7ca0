"""A signal that a library loses stops the command all the same, at the next step."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest

from raygrad import stopping
from raygrad.cli import command
from raygrad.progress import Progress


@pytest.fixture(autouse=True)
def _signals_are_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def lose(number):
    """Sends a signal where its exception is lost, as a call back from C loses it."""
    heard = []

    @ctypes.CFUNCTYPE(None)
    def called_from_c():
        signal.raise_signal(number)

    hook, sys.unraisablehook = sys.unraisablehook, heard.append
    try:
        called_from_c()
    finally:
        sys.unraisablehook = hook
    assert [one.exc_type for one in heard] == [KeyboardInterrupt]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_is_lost_stops_at_the_next_step(number, status, capsys):
    steps = []

    def work():
        progress = Progress("sweep", 3, "trials")
        for step in range(3):
            progress.add(1)
            steps.append(step)
            if step == 1:
                lose(number)

    assert command.guarded(work) == status
    assert steps == [0, 1]
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_is_lost_in_the_last_step_is_in_the_status(number, status):
    assert command.guarded(lambda: lose(number)) == status


def test_what_is_done_while_a_stop_is_dealt_with_is_not_stopped_again():
    cleaned = []

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            stopping.go_on()
            cleaned.append(True)

    assert command.guarded(work) == 130
    assert cleaned == [True]


def test_other_threads_are_not_stopped_for_the_main_one():
    ended = []

    def other():
        stopping.go_on()
        ended.append(True)

    def work():
        lose(signal.SIGINT)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert command.guarded(work) == 130
    assert ended == [True]


def test_one_command_leaves_nothing_behind_for_the_next():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert command.guarded(lambda: lose(signal.SIGINT)) == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert command.guarded(stopping.go_on) == 0


def test_a_ctrl_c_that_is_ignored_stays_ignored():
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from raygrad.cli.command import guarded\n"
        "sys.exit(guarded(lambda: os.kill(os.getpid(), signal.SIGINT)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, timeout=60, check=False)
    assert done.returncode == 0
