"""Which workers may be forks, and what a fork is told."""

import json
import os
import signal
import subprocess
import sys

from raygrad.engine.workers import launcher

WORKER = ["/ray/default_worker.py", "--node-id=7"]


def context(**of_worker):
    return "--serialized-runtime-env-context=" + json.dumps(of_worker)


def test_a_plain_python_worker_can_be_a_fork_with_its_own_arguments():
    assert launcher.forkable(["--language=PYTHON", *WORKER]) == (WORKER, {})
    plain = context(command_prefix=[], env_vars={}, py_executable=sys.executable, java_jars=[])
    assert launcher.forkable([plain, "--language=PYTHON", *WORKER]) == (WORKER, {})


def test_variables_of_a_runtime_environment_go_with_it():
    told = context(env_vars={"A": "1"}, py_executable=sys.executable)
    assert launcher.forkable([told, *WORKER]) == (WORKER, {"A": "1"})
    wished = launcher.wish(WORKER, {"A": "1", "HOME": "/nowhere"})
    assert wished["environment"]["A"] == "1"
    assert wished["environment"]["HOME"] == "/nowhere"


def test_another_interpreter_language_container_or_entry_is_no_fork():
    assert launcher.forkable([context(py_executable="/usr/bin/other"), *WORKER]) is None
    assert launcher.forkable([context(command_prefix=["docker", "run"]), *WORKER]) is None
    assert launcher.forkable([context(override_worker_entrypoint="/x.py"), *WORKER]) is None
    assert launcher.forkable(["--language=JAVA", *WORKER]) is None
    assert launcher.forkable(["--language=PYTHON", "-S", *WORKER]) is None
    assert launcher.forkable(["--language=PYTHON"]) is None


def test_a_wish_leaves_out_where_to_ask():
    os.environ[launcher.SOCKET] = "/somewhere"
    try:
        assert launcher.SOCKET not in launcher.wish(WORKER, {})["environment"]
    finally:
        del os.environ[launcher.SOCKET]


def test_a_wish_says_which_signals_are_ignored_and_blocked():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        wished = launcher.wish(WORKER, {})
        assert signal.SIGUSR1 in wished["ignored"]
        assert signal.SIGUSR2 in wished["blocked"]
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_where_nobody_answers_rays_own_script_runs_with_its_arguments(tmp_path):
    script = tmp_path / "setup.py"
    script.write_text("import sys; print(sys.argv[1:])")
    where = {launcher.SOCKET: str(tmp_path / "none"), launcher.SCRIPT: str(script)}
    ran = subprocess.run(
        [sys.executable, launcher.__file__, "--language=PYTHON", *WORKER],
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == str(["--language=PYTHON", *WORKER])
