"""What workers warn of is told by who started them: their own lines stay in Ray's files."""

import logging
from types import SimpleNamespace

import pytest
import ray

from raygrad.engine import relay
from raygrad.engine.relay import Board, relayed, tell_to, told_to

log = logging.getLogger("raygrad")


class Here(Board):
    """A board in this process, that is told as one in another is."""

    def __init__(self):
        super().__init__()
        self.remote = SimpleNamespace(remote=super().say)

    @property
    def say(self):
        return self.remote


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(relay, "_told", type(relay._told)())
    yield Here()
    for handler in [one for one in log.handlers if isinstance(one, relay._ToBoard)]:
        log.removeHandler(handler)


def warn(text, of="train"):
    log.warning("%s: %s", of, text)


def test_warnings_reach_the_driver_and_other_lines_do_not(board):
    with told_to(board, "cnn random 0.1 seed 0 equal_epochs"):
        log.info("train: is not told")
        warn("batches of 6 from now on")
    warn("after the work")
    said = ["cnn random 0.1 seed 0 equal_epochs: batches of 6 from now on"]
    assert board.drain_said() == said
    assert board.drain_said() == board.drain() == []


def test_what_comes_with_every_epoch_is_told_three_times_and_of_several_ranks_once(board):
    with told_to(board), told_to(board):
        for epoch in range(5):
            warn(f"chunks of {epoch}")
    with told_to(board):
        log.warning("another line of code")
    last = " (further ones of this process are not told)"
    assert board.drain_said() == ["chunks of 0", f"chunks of 1{last}", "another line of code"]


def test_a_process_of_one_stage_tells_its_latest_board(board):
    tell_to(earlier := Here())
    tell_to(board)
    warn("batches of 6 from now on", "score")
    assert board.drain_said() == ["batches of 6 from now on"]
    assert earlier.drain_said() == []


def test_a_board_that_is_lost_costs_no_work(board, monkeypatch):
    def lost(_):
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(board, "remote", SimpleNamespace(remote=lost))
    with told_to(board):
        warn("nobody hears")


def test_the_board_stands_on_the_drivers_node_and_is_started_again(monkeypatch):
    """On any other it would be lost with that one, and progress with it for good."""
    options = {}

    def remote(**given):
        options.update(given)
        return lambda actor: SimpleNamespace(remote=lambda: "the board")

    context = SimpleNamespace(get_node_id=lambda: "0a" * 28)
    fake = SimpleNamespace(remote=remote, get_runtime_context=lambda: context)
    monkeypatch.setattr(relay, "ray", fake)
    assert relay._start_board(Board) == "the board"
    assert options["scheduling_strategy"].node_id == "0a" * 28
    assert options["scheduling_strategy"].soft is False
    assert (options["num_cpus"], options["max_restarts"]) == (0, -1)


def test_the_driver_tells_what_was_said_when_the_work_is_over(monkeypatch, caplog):
    def get(values):
        return values

    posted, told = [(1, "quick"), (0, "a note")], []
    board = SimpleNamespace(
        drain=SimpleNamespace(remote=lambda: [posted.pop(0)] if posted else []),
        drain_said=SimpleNamespace(remote=lambda: ["batches of 6"] if len(posted) == 1 else []),
    )
    fake = SimpleNamespace(get=get, kill=lambda _: None, exceptions=ray.exceptions)
    monkeypatch.setattr(relay, "ray", fake)
    monkeypatch.setattr(relay, "_start_board", lambda _: board)
    progress = SimpleNamespace(add=lambda *post: told.append(post))
    with relayed("train", progress):
        pass
    assert told == [(1, "quick")]
    assert "train: batches of 6" in caplog.messages
