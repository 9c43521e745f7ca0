"""Ray's notice that a node will be taken away: told once a deadline, by the node's own name."""

import time
from types import SimpleNamespace

import pytest
import ray

from raygrad.engine import notice as notice_module
from raygrad.engine import ray_private
from raygrad.engine.notice import Notice


@pytest.fixture
def node(monkeypatch):
    """This process's node, `mine`, and what Ray says of nodes that drain."""
    context = SimpleNamespace(get_node_id=lambda: "mine")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(notice_module, "POLL_S", 0.01)
    draining: dict[str, int] = {}
    monkeypatch.setattr(ray._private.state.state, "get_draining_nodes", lambda: dict(draining))
    return draining


def heard_within(notice, seconds):
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if notice():
            return True
        time.sleep(0.01)
    return False


def test_each_deadline_of_this_node_is_told_once_and_those_of_others_never(node):
    with Notice() as notice:
        node["other"] = 5
        assert not heard_within(notice, 0.1)
        node["mine"] = 0  # no deadline is a notice too
        assert heard_within(notice, 10)
        assert not heard_within(notice, 0.1)
        node["mine"] = 1_800_000_000_000
        assert heard_within(notice, 10)


def test_a_ray_that_does_not_answer_is_no_notice_and_is_asked_again(node, monkeypatch):
    answers = iter([ConnectionError("GCS"), RuntimeError("GCS"), None])

    def ask(name):
        answer = next(answers, 7)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray_private, "drain_deadline_ms", ask)
    with Notice() as notice:
        assert heard_within(notice, 10)


def test_without_ray_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with Notice() as notice:
        assert not notice._asking.is_alive()
        assert not notice()
