"""Whose error a trial of several processes is said to have failed by, without Ray."""

import contextlib
from types import SimpleNamespace

import pytest
import ray

from raygrad.engine.sweep import group
from raygrad.engine.sweep.packing import TrialNeeds
from raygrad.errors import IncompleteError, RaygradError

OWN = RuntimeError("CUDA error: uncorrectable ECC error encountered")
ECHO = RuntimeError("Connection closed by peer")


@pytest.fixture
def two_ranks(monkeypatch):
    """Two ranks, the second of which fails as it is told to; it fails of an echo at last."""
    state = SimpleNamespace(peer=None)

    @contextlib.contextmanager
    def joined(*_):
        try:
            yield
        except BaseException:
            state.peer = state.peer or ECHO  # rank 0 leaves, and the others notice
            raise

    run = SimpleNamespace(remote=lambda *_: "its task")
    monkeypatch.setattr(group, "_peers", [SimpleNamespace(run=run)])
    monkeypatch.setattr(group, "TCPStore", lambda *_, **__: SimpleNamespace(port=1))
    monkeypatch.setattr(group, "_joined", joined)
    monkeypatch.setattr(group, "_first_failure", lambda tasks, wait_s=2.0: state.peer)
    util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
    fake = SimpleNamespace(
        util=util, kill=lambda _: None, get=lambda tasks: None, exceptions=ray.exceptions
    )
    monkeypatch.setattr(group, "ray", fake)
    monkeypatch.setattr(group, "_WATCH_S", 60.0)
    return state


def failing(state, own, peer=None):
    def work():
        state.peer = peer
        raise own

    with pytest.raises((IncompleteError, RaygradError)) as error:
        group.run_in_group(TrialNeeds(2, 1.0, 0.0), work)
    assert not group._peers
    return error.value


def test_rank_0s_own_error_is_told_and_not_what_others_met_after_it(two_ranks):
    error = failing(two_ranks, OWN)
    assert "uncorrectable ECC" in str(error)
    assert "closed by peer" not in str(error)
    assert isinstance(error, IncompleteError), "it is tried again"


def test_the_error_of_another_rank_that_failed_first_is_told(two_ranks):
    assert "uncorrectable ECC" in str(failing(two_ranks, ECHO, OWN))


def test_what_raygrad_finds_wrong_on_any_rank_is_final(two_ranks):
    diverged = RaygradError("training loss must stay finite")
    assert failing(two_ranks, ECHO, diverged) is diverged


def test_so_is_what_it_finds_wrong_on_rank_0(two_ranks):
    diverged = RaygradError("training loss must stay finite")
    assert failing(two_ranks, diverged) is diverged
