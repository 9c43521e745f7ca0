"""On fewer CPUs than asked for nothing hangs: the work adapts and says so, or fails clearly."""

import os
from pathlib import Path

import pytest

from tests.preloaded import ran

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
pytestmark = [pytest.mark.long(seconds=40), pytest.mark.timeout(900)]
PROGRAM = """
import sys
from pathlib import Path
import ray
from raygrad.engine.ray_private import lean_node
with lean_node():
    ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, logging_level=40)
from raygrad.cli import command as cli
from raygrad.cli import subcommands as commands
from tests.cases import make_tiny_config
from tests.report.no_pictures import no_pictures
with no_pictures():
    sys.exit(cli.guarded(lambda: commands.run_study(make_tiny_config(Path()))))
"""


def study_on(num_cpus, folder):
    """Runs the tiny study in a folder, named by a relative path as a user names it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    return ran(["-c", PROGRAM, str(num_cpus)], environment, folder, TIMEOUT_S)


def test_one_cpu_is_enough_and_it_is_said(tmp_path):
    done = study_on(1, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train: 1 worker instead of 2 on cpu, 1 CPU each: 1 node of 1 CPU" in done.stderr
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_no_cpu_is_a_clear_error(tmp_path):
    done = study_on(0, tmp_path)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("raygrad: ")
    assert "prepare needs 1 CPU, got the cluster has 0 CPU" in last
