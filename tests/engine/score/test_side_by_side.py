"""Of two shards that were under way when their actor died, only the guilty one is given up."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from raygrad.engine.score import actor as scoring_actor
from raygrad.engine.score import board as score_board
from raygrad.engine.score import desk
from raygrad.engine.score.actor import SHARDS_AT_A_TIME
from raygrad.engine.score.alone import Alone
from raygrad.engine.score.blame import MAX_DEATHS, Place
from raygrad.engine.score.board import Board
from raygrad.engine.score.task import ShardStatus
from raygrad.engine.waiting import Need
from raygrad.runs import score_table
from tests.engine.score.scoring_cases import (
    assert_same_scores,
    bare_scores,
    by_key,
    make_shards,
    make_task,
)

WAIT_S = 20
SHARDS = ("own-000", "own-001", "own-002", "own-003")


def test_of_two_shards_only_the_one_that_kills_alone_too_is_given_up(monkeypatch):
    """Both count the death that they share; each is alone from then on. Their node is not blamed.

    It counts a death when it is known of which shard it was, so that one is not taken for two.
    """
    nodes = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 2.0}} for name in "nm"]
    monkeypatch.setattr(score_board, "ray", SimpleNamespace(nodes=lambda: nodes))
    board, here = Board(Need(1, {"CPU": 1.0}), 60.0, 0), Place("n")
    assert board.suspects("one") == []
    assert [board.begin(s, "one", here) for s in ("good", "poison")] == [(0, "wait")] * 2
    board.begin("elsewhere", "another", Place("m"))
    assert board.suspects("one") == ["good", "poison"]
    assert board.begin("good", "one", here) == (1, "wait")
    board.end("good", 12, is_right=True)
    assert board.begin("poison", "one", here) == (1, "wait")
    assert board.suspects("one") == ["poison"]
    assert board.begin("poison", "one", here) == (2, "wait")
    assert board.suspects("one") == ["poison"]
    died, verdict = board.begin("poison", "one", here)
    assert (died, verdict) == (MAX_DEATHS, "failed")
    assert board.read().aside == ()


def test_a_shard_whose_actor_ended_itself_is_no_suspect(monkeypatch):
    monkeypatch.setattr(score_board, "ray", SimpleNamespace(nodes=list))
    board = Board(Need(1, {"CPU": 1.0}), 60.0, 0)
    board.begin("a", "one", Place("n"))
    board.leave("one")
    assert board.suspects("one") == []


class Here:
    """A board in this process, that is asked as one in another is."""

    def __init__(self, board):
        self._board, self._lock, self.begun = board, threading.Lock(), []

    def __getattr__(self, name):
        def remote(*args, **options):
            with self._lock:
                if name == "begin":
                    self.begun.append((args[0], sorted(self._board._under_way)))
                return getattr(self._board, name)(*args, **options)

        return SimpleNamespace(remote=remote)


@pytest.fixture
def actor(tmp_path, monkeypatch):
    """Makes an actor in this process, of a task of four shards, and its board."""
    context = SimpleNamespace(
        get_actor_id=lambda: "one",
        get_node_id=lambda: "n",
        get_accelerator_ids=dict,
        was_current_actor_reconstructed=False,
    )
    nodes = [{"NodeID": "n", "Alive": True, "Resources": {"CPU": 2.0}}]
    ray = SimpleNamespace(
        get=lambda value: value, get_runtime_context=lambda: context, nodes=lambda: nodes
    )
    counters = SimpleNamespace(inc=lambda count: None, set=lambda rate: None)
    for module in (scoring_actor, score_board, desk):
        monkeypatch.setattr(module, "ray", ray)
    monkeypatch.setattr(
        scoring_actor,
        "metrics",
        SimpleNamespace(Counter=lambda *_: counters, Gauge=lambda *_: counters),
    )
    monkeypatch.setattr(scoring_actor, "tell_to", lambda board: None)
    board = Here(Board(Need(1, {"CPU": 1.0}), 60.0, 0))
    task = make_task(tmp_path, make_shards(tmp_path, broken=("s1-003",)))
    return lambda: scoring_actor.ShardScorer(task, board), board, task


def called(scorer, shards):
    """Calls an actor for shards, two at a time, as Ray Data does."""
    with ThreadPoolExecutor(SHARDS_AT_A_TIME) as pool:
        rows = list(pool.map(lambda shard: scorer({"shard": [shard]}), shards))
    return {str(row["shard"][0]): ShardStatus(**{k: v[0] for k, v in row.items()}) for row in rows}


def test_an_actor_that_is_called_for_two_shards_settles_each_example_once(actor, tmp_path):
    make, board, task = actor
    found = called(make(), SHARDS)
    assert {status.kind for status in found.values()} == {"done"}
    assert board._board.read().done == 48
    score_table.write_manifest(task.out_url, SHARDS, task.provenance, 0.0)
    assert_same_scores(by_key(tmp_path), bare_scores(task, skip=("s1-003",)))


def test_an_actor_that_starts_again_scores_the_shards_of_its_death_alone(actor):
    """Whatever else it is called for at the same time; then again two at a time."""
    make, board, _ = actor
    for shard in SHARDS[:2]:
        board.begin.remote(shard, "one", Place("n"))
    scorer = make()
    board.begun.clear()
    found = called(scorer, SHARDS)
    assert {status.kind for status in found.values()} == {"done"}
    beside = {shard: set(others) - {shard} for shard, others in board.begun}
    under_way = {shard: beside[shard] - set(SHARDS[:2]) for shard in SHARDS[:2]}
    assert under_way == {shard: set() for shard in SHARDS[:2]}


def test_what_is_to_be_alone_is_and_the_others_go_together():
    gate, under_way, most = Alone(), [], []

    def run(name, alone, go_on):
        with gate.admitted(alone):
            under_way.append(name)
            most.append(sorted(under_way))
            assert go_on.wait(WAIT_S)
            under_way.remove(name)

    steps = {name: threading.Event() for name in "abCd"}
    threads = {
        name: threading.Thread(target=run, args=(name, name.isupper(), step))
        for name, step in steps.items()
    }

    def until(names):
        for _ in range(2000):
            if sorted(under_way) == names:
                return
            threading.Event().wait(0.005)
        raise AssertionError(under_way)

    threads["a"].start()
    threads["b"].start()
    until(["a", "b"])
    threads["C"].start()
    until(["a", "b"])
    threads["d"].start()
    steps["a"].set()
    until(["b"])
    steps["b"].set()
    until(["C"])
    steps["C"].set()
    until(["d"])
    steps["d"].set()
    for thread in threads.values():
        thread.join(WAIT_S)
    assert ["C"] in most


@pytest.mark.parametrize(
    ("work", "status"),
    [
        # The second stands still while the first lives on, in code that holds the lock or not.
        ("with clock.watching() as a, clock.watching():\n  for _ in range(60): a(); sleep(.05)", 1),
        ("with clock.watching(): ctypes.PyDLL(None).usleep(3000000)", 1),
        ("with clock.watching() as a:\n  for _ in range(30): a(); sleep(.05)", 0),
        ("with clock.watching(): pass\nsleep(1.5)", 0),
    ],
)
def test_a_process_ends_when_one_of_what_it_watches_stands_still(work, status):
    head = "import ctypes\nfrom time import sleep\nfrom raygrad.engine.score.clock import Clock\n"
    code = f"{head}clock = Clock(0.8)\n{work}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr


def test_an_actor_that_is_called_for_shards_together_tells_of_each(actor):
    make, board, _ = actor
    batch = make()({"shard": SHARDS})
    assert tuple(batch["shard"]) == SHARDS
    assert board._board.read().most_actors == 1
    assert board._board.read().actors == 0
    assert set(batch["kind"].tolist()) == {"done"}
    assert board._board.read().done == 48


def test_what_ends_the_job_ends_the_call_for_shards_together(actor, monkeypatch):
    """Where storage was waited for in vain, it is not waited for once more for each of the rest."""
    make, _, _ = actor
    scorer = make()
    kinds = iter(["done", "away"])
    monkeypatch.setattr(scorer, "_status", lambda shard: ShardStatus(shard, next(kinds)))
    assert tuple(scorer({"shard": SHARDS})["shard"]) == SHARDS[:2]


def test_a_shard_that_is_found_again_is_counted_once(monkeypatch):
    """An actor that dies has settled some of the shards that it was called for together."""
    monkeypatch.setattr(score_board, "ray", SimpleNamespace(nodes=list))
    monkeypatch.setattr(score_board, "_ENDED", 2)
    board, here = Board(Need(1, {"CPU": 1.0}), 60.0, 0), Place("n")
    for _ in range(2):
        for shard in ("a", "b"):
            board.begin(shard, "one", here)
            board.end(shard, 12, is_right=True)
    assert board.read().done == 24
    board.begin("tried again", "one", here)
    board.end("tried again", 0, is_right=False)
    board.end("tried again", 12, is_right=True)
    assert board.read().done == 36
    assert len(board._ended) == 2
