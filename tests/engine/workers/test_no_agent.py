"""What stands in the place of a dashboard's agent says there is none, and ends with its node."""

import shlex
import subprocess
import sys

import pytest
from ray import _raylet

from raygrad.engine import own_nodes, ray_private
from raygrad.engine.workers import no_agent

NODE = "0f" * 28
NAMES = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")


def agents_command(folder):
    """Ray's own, as far as it is read."""
    return subprocess.list2cmdline(
        ["python", "-u", "agent.py", f"--node-id={NODE}", f"--session-dir={folder}", "--minimal"]
    )


@pytest.mark.parametrize("folder", ["session", "a session"])
def test_every_file_that_a_node_waits_for_says_that_nothing_is_served(tmp_path, folder):
    """By the names that Ray itself gives them, and read by Ray as no port."""
    session = tmp_path / folder
    session.mkdir()
    command = own_nodes.without_agent(agents_command(session), ray_private._port_file)
    program, script, *files = shlex.split(command)
    assert (program, script) == (sys.executable, no_agent.__file__)
    no_agent.say_no_port(files)
    found = {path.name: path.read_text() for path in session.iterdir()}
    assert found == {f"{name}_{NODE}": "-1" for name in NAMES}
    for name in NAMES:
        assert _raylet.wait_for_persisted_port(str(session), NODE, name) == -1


@pytest.mark.parametrize("command", ["python agent.py", f"python agent.py --node-id={NODE}"])
def test_a_command_that_is_not_as_expected_stays_rays(command):
    """But for what serves a dashboard; so does one for a folder that is not there."""
    assert own_nodes.without_agent(command, ray_private._port_file) == f"{command} --minimal"
    gone = agents_command("/nowhere")
    assert own_nodes.without_agent(gone, ray_private._port_file) == gone


@pytest.mark.parametrize("was_there", [True, False])
def test_it_ends_with_its_node_and_imports_nothing_of_rays(tmp_path, was_there):
    """Also where the node had gone before it looked."""
    start = "import os; os.environ.pop('RAY_RAYLET_PID', None)\n"
    start += f"os.environ['RAY_RAYLET_PID'] = {'str(os.getpid())' if was_there else repr('1')}\n"
    start += "import subprocess, sys\n"
    start += "one = subprocess.Popen([sys.executable, '-v', *sys.argv[1:]], stderr=2)\n"
    start += "import time, os.path\n"
    start += "while not os.path.exists(sys.argv[-1]): time.sleep(0.01)\n"
    said = subprocess.run(
        [sys.executable, "-c", start, no_agent.__file__, str(tmp_path / "port")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stderr
    # What it writes ends with it: that `run` came back says that it ended.
    assert (tmp_path / "port").read_text() == "-1"
    assert "import 'ray" not in said
    assert "import 'torch" not in said
