"""The driver's board is right of actors that are gone, and after Ray has started it again."""

from types import SimpleNamespace

import pytest

from raygrad.engine.score import board as score_board
from raygrad.engine.score import job, watch
from raygrad.engine.score.blame import Place
from raygrad.engine.score.board import Board, BoardState
from raygrad.engine.score.task import ShardStatus
from raygrad.engine.score.trouble import TroubleTelling
from raygrad.engine.waiting import Need

ONE_CPU = Need(1, {"CPU": 1.0})


@pytest.fixture
def nodes(monkeypatch):
    """Nodes n and m as Ray tells of them, and no time between two looks at them."""
    there = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 2.0}} for name in "nm"]
    monkeypatch.setattr(score_board, "ray", SimpleNamespace(nodes=lambda: there))
    monkeypatch.setattr(score_board, "_LOST_S", 0.0)
    return there


@pytest.mark.parametrize("fault", ["device", "setup", "code", "storage", "shard", "data"])
def test_a_board_that_ray_has_started_again_judges_faults_of_actors_that_it_has_not_met(
    fault, nodes
):
    """It is new, and its actors are in the middle of their shards."""
    told = (fault, "one", Place("n"), "own-000", "broken", False)
    met, anew = Board(ONE_CPU, 60.0, 1), Board(ONE_CPU, 60.0, 1)
    met.build("one", Place("n"))
    met.begin("own-000", "one", Place("n"))
    assert anew.fault(*told) == met.fault(*told)


def test_actors_whose_node_is_gone_are_not_at_work(nodes):
    """Their attempts stay until an actor begins those shards again, perhaps never."""
    board = Board(ONE_CPU, 60.0, 0)
    board.begin("a", "one", Place("n"))
    board.begin("b", "two", Place("m"))
    assert board.read().actors == 2
    nodes[0]["Alive"] = False
    assert board.read().actors == 1
    nodes[1]["Alive"] = False
    assert board.read().actors == 0
    assert board.read().most_actors == 2
    nodes.append({"NodeID": "new", "Alive": True, "Resources": {"CPU": 2.0}})
    board.begin("a", "one", Place("new"))
    assert board.read().actors == 1


def test_a_job_that_has_lost_all_nodes_ends_by_the_bound_and_not_by_its_actors_time(
    nodes, monkeypatch
):
    """Actors that hold a shard have `shard_timeout_s` to tell of progress; dead ones have not."""
    board = Board(ONE_CPU, 60.0, 0)
    board.begin("a", "one", Place("n"))
    for node in nodes:
        node["Alive"] = False
    state = board.read()
    quiet = BoardState(0, state.actors, 0, idle_s=100.0)
    said = []
    patience = SimpleNamespace(still=said.append, over=lambda: said.append("over"))
    watch._check_moving(quiet, 600.0, patience)
    assert said == [100.0]


def test_what_actors_warn_of_is_told_once_and_not_of_each_of_very_many(nodes, caplog):
    board, telling = Board(ONE_CPU, 60.0, 0), TroubleTelling("score")
    for size in [128, 128, *range(100)]:
        board.say(f"batches of {size} from now on")
        telling.tell(board.read())
    assert len(caplog.messages) == score_board._MOST_SAID
    assert caplog.messages.count("score: batches of 128 from now on") == 1


def test_a_board_that_was_started_again_takes_no_progress_back(monkeypatch):
    states = [BoardState(48, 1, 0, 0.0, most_actors=4), BoardState(6, 1, 0, 0.0, most_actors=1)]
    board = SimpleNamespace(read=SimpleNamespace(remote=lambda: states.pop(0)))
    monkeypatch.setattr(watch, "ray", SimpleNamespace(get=lambda value: value))
    looking = watch.Watch(board, SimpleNamespace(shard_timeout_s=600.0), ONE_CPU, 60.0, 96)
    added = []
    looking._progress = SimpleNamespace(add=lambda count, note: added.append(count))
    looking.look(0, 0, 36)
    looking.look(0, 0, 48)
    assert sum(added) == 48
    assert looking.most_actors == 4


def test_shards_that_are_tried_again_are_counted_once_in_the_note(monkeypatch):
    """The board's count goes on from pool to pool; what failed and is tried again is beside it."""
    looks, pools = [], [[("a", "failed"), ("b", "done")], [("a", "failed")], [("a", "done")]]

    class Looking:
        def __init__(self, *_):
            self.trouble = SimpleNamespace(aside=[], lines=[])
            self.is_due, self.most_actors = True, 2

        def look(self, retries, rejects, settled):
            looks.append(retries)
            return BoardState(0, 1, 5, 0.0)

    def statuses(*_):
        yield from (ShardStatus(shard, kind) for shard, kind in pools.pop(0))

    board = SimpleNamespace(new_pool=SimpleNamespace(remote=lambda: None))
    monkeypatch.setattr(job, "Watch", Looking)
    monkeypatch.setattr(job, "pool_statuses", statuses)
    monkeypatch.setattr(job, "start_board", lambda *_: board)
    monkeypatch.setattr(job, "wait_for", lambda *_: [])
    monkeypatch.setattr(job, "actor_need", lambda *_: ONE_CPU)
    monkeypatch.setattr(job, "ray", SimpleNamespace(get=lambda value: value))
    tally = job._Tally()
    shards = {"a": (12, "x"), "b": (12, "x")}
    job._score_all(None, None, shards, ["a", "b"], tally, 60.0)
    assert max(looks) == 2, "two tries have failed; the board adds its five deaths"
    assert tally.retries == 7
