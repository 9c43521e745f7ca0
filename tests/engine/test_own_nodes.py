"""A node that is slow to start is waited for, as long as there is something to wait for."""

import shutil
import subprocess

import pytest

from raygrad.engine import own_nodes


@pytest.fixture
def raylet(tmp_path, monkeypatch):
    """A process that looks like the raylet of the only node of this process."""
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "raylet")
    process = subprocess.Popen([program, "60"])
    own = [one for one in own_nodes._own_raylets() if one.pid == process.pid]
    assert own, "it is taken for one"
    monkeypatch.setattr(own_nodes, "_own_raylets", lambda: own)
    yield process
    process.kill()
    process.wait()


def test_a_node_that_is_slow_to_be_there_is_waited_for(raylet, monkeypatch):
    """For longer than Ray's own half minute; the clock here goes ten seconds a question."""
    clock, answers = [0.0], iter([RuntimeError, RuntimeError] * 5 + [{"port": 1}])
    monkeypatch.setattr(own_nodes.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(own_nodes.time, "sleep", lambda _: None)

    def get_node(address, node_id):
        assert (address, node_id) == ("here", "me")
        clock[0] += 10.0
        answer = next(answers)
        if answer is RuntimeError:
            raise answer("no such node")
        return answer

    assert own_nodes.while_raylet_starts(get_node)("here", "me") == {"port": 1}
    assert clock[0] == 110.0


@pytest.mark.parametrize("ended", [True, False])
def test_a_node_whose_raylet_has_ended_or_never_comes_is_not(raylet, ended, monkeypatch):
    if ended:
        raylet.kill()
    monkeypatch.setattr(own_nodes, "_THERE_WITHIN_S", 60.0 if ended else 0.2)

    def get_node():
        raise RuntimeError("no such node")

    with pytest.raises(RuntimeError, match="no such node"):
        own_nodes.while_raylet_starts(get_node)()
