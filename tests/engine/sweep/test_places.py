"""A GPU or node that fails trials takes one of them, and none of those that wait."""

import errno
import logging
import os
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import ray
import torch

from raygrad.config import SweepConfig
from raygrad.engine.score.blame import Place
from raygrad.engine.sweep import group, places, watch
from raygrad.engine.sweep import job as sweep_engine
from raygrad.engine.sweep.places import MOST_AT_ONE, PlaceBoard, PlaceError, Places, of_this_place
from raygrad.errors import IncompleteError, RaygradError, ResourceError
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ResultRows
from tests.engine.lost_nodes import on_two_nodes
from tests.engine.score import faulty_networks
from tests.engine.sweep.sweeping import RECIPE, make_data, make_trials

ECC = RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be")
FULL = ResourceError("decoded images of 2.0 GB must fit the node's disk, got 1.0 GB.")
HERE, THERE = Place("0a" * 28, "3"), Place("0b" * 28)


class Here:
    """A board in this process, that is told as one in another is."""

    def __init__(self, board):
        self.board = board

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self.board, name))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No Ray, and no time between two looks."""
    monkeypatch.setattr(places, "place_here", lambda: HERE)
    fake = SimpleNamespace(get=lambda value: value, exceptions=ray.exceptions)
    monkeypatch.setattr(places, "ray", fake)
    monkeypatch.setattr(places, "_LOOK_S", 0.0)
    monkeypatch.setattr(places, "_FREE_S", 0.0)
    monkeypatch.setattr(places, "_IDLE_S", 1e-9)


def met(error):
    with pytest.raises(type(error)) as caught, of_this_place():
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "is_final"), [(ECC, False), (FULL, True), (MemoryError(), False)]
)
def test_an_error_of_the_gpu_or_the_nodes_memory_or_disk_names_the_place(error, is_final):
    where = r"GPU 3 \(node 0a0a0a0a0a0a\): "
    with pytest.raises(PlaceError, match=where) as caught, of_this_place():
        raise error
    fault = pickle.loads(pickle.dumps(caught.value))
    assert (fault.place, fault.is_final) == (HERE, is_final)
    assert str(fault) == str(caught.value)
    assert "\n" not in str(fault)
    assert isinstance(fault, IncompleteError), "it is tried again"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RaygradError("training loss must stay finite"),
        IncompleteError("storage must answer"),
        OSError(errno.ESTALE, "Stale file handle"),
        torch.distributed.DistBackendError("NCCL error: unhandled cuda error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_left_as_it_is(error):
    assert met(error) is error


def test_a_place_is_kept_from_its_second_fault_on_and_forgiven_where_a_trial_finishes():
    board = PlaceBoard(has_others=True)
    assert not board.fault("a", HERE)
    board.works(HERE)
    assert not board.fault("b", HERE)
    assert not board.fault("b", THERE)
    assert board.fault("c", HERE)
    assert board.keeping() == ["c"]
    board.begin("c")
    assert board.keeping() == []
    alone = PlaceBoard(has_others=False)
    assert not any(alone.fault(name, HERE) for name in "abc")


def test_a_trial_keeps_its_place_until_it_is_let_go_and_that_is_said(monkeypatch):
    board = PlaceBoard(has_others=True)
    board.fault("before", HERE)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            board.let_go(["a"])

    monkeypatch.setattr(places.time, "sleep", sleep)
    with pytest.raises(PlaceError), places.kept_from_others(Here(board), "a", "cnn random"):
        raise PlaceError("w-2 GPU 3: ECC", HERE, False)
    assert len(slept) == 3
    assert board.drain_said() == [
        "cnn random keeps a place that fails from the others: w-2 GPU 3: ECC"
    ]
    with places.kept_from_others(Here(board), "a", "cnn random"):
        pass
    assert not board.fault("b", HERE), "a trial has finished there"


def fault(place, is_final=False):
    return PlaceError("its place failed", place, is_final)


@pytest.mark.parametrize(("is_final", "own"), [(True, False), (False, None)])
def test_what_a_second_place_fails_too_is_the_trials_own(is_final, own):
    decide = Places(None, 8, True).goes_on
    assert decide("a", fault(HERE, is_final)) is True
    assert decide("b", fault(THERE, is_final)) is True
    assert decide("a", fault(THERE, is_final)) is own
    alone = Places(None, 8, False).goes_on
    assert alone("a", fault(HERE, is_final)) is own, "there is no other place"


def test_a_trial_that_one_place_alone_fails_is_not_tried_for_ever():
    decide = Places(None, 8, True).goes_on
    decided = [decide("a", fault(HERE)) for _ in range(MOST_AT_ONE + 1)]
    assert decided == [True] * MOST_AT_ONE + [False]


@pytest.mark.parametrize(
    ("running", "num_waiting", "kept"),
    [
        ("abc", 5, "ab"),
        ("abc", 0, "ab"),
        ("ab", 1, ""),
        ("abd", 1, "ab"),
        ("ac", 0, "b"),
        ("bcd", 0, "ab"),
    ],
    ids=[
        "others wait",
        "no room elsewhere",
        "none is at work",
        "one waits",
        "room elsewhere",
        "all slots",
    ],
)
def test_a_place_is_kept_while_another_trial_would_be_given_it(running, num_waiting, kept):
    """Of three slots two are kept, by a and b."""
    board = PlaceBoard(has_others=True)
    deciding = Places(Here(board), 3, True)
    for trial in "ab":
        deciding.goes_on(trial, fault(HERE))
        board.fault(trial, HERE)
    board.fault("a", HERE)
    deciding.look(set(running), num_waiting)
    assert "".join(sorted(board.keeping())) == kept


def test_a_moment_between_two_trials_of_a_slot_lets_no_place_go(monkeypatch):
    """Only where none is at work for long do not the places fail."""
    clock = [0.0]
    monkeypatch.setattr(places.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(places, "_IDLE_S", 30.0)
    board = PlaceBoard(has_others=True)
    deciding = Places(Here(board), 2, True)
    deciding.goes_on("a", fault(HERE))
    assert [board.fault("a", HERE) for _ in range(2)] == [False, True]
    kept = []
    for running, num_waiting in (("ab", 3), ("a", 4), ("ab", 3), *[("a", 4)] * 4):
        clock[0] += 10.0
        deciding.look(set(running), num_waiting)
        kept.append(bool(board.keeping()))
    assert kept == [True] * 5 + [False] * 2


def test_a_rank_that_its_place_has_failed_is_told_as_that():
    assert group._named(found := fault(HERE)) is found
    assert isinstance(group._named(RuntimeError("gone")), IncompleteError)


def test_the_watch_asks_the_places_before_it_counts(tmp_path, monkeypatch):
    (trial, _), *_ = make_trials(RunLayout(str(tmp_path)), make_data(), seeds=(0,), budgets=(40,))
    rows = ResultRows(str(tmp_path), str(tmp_path / "results.parquet"))
    patience = SimpleNamespace(over=lambda: None, still=lambda: None)
    seen = watch.Watch(rows, str(tmp_path), [trial], patience, 0)
    seen.places = Places(None, 8, True)
    monkeypatch.setattr(watch, "_error", lambda failed: SimpleNamespace(cause=failed.error))
    errors = [fault(HERE, True), fault(HERE, True), fault(THERE, True), RuntimeError("own")]
    failed = [SimpleNamespace(config={"position": 0}, error=error) for error in errors]
    assert [seen.goes_on(one) for one in failed] == [True, True, False, False]
    assert watch._reason(failed[0]) == "its place failed"


def test_one_node_or_one_gpu_is_the_only_place():
    each = {"CPU": 1.0, "GPU": 1.0}
    assert not places.has_others([{"CPU": 64.0}], {"CPU": 1.0})
    assert not places.has_others([{"CPU": 8.0, "GPU": 1.0}], each)
    assert places.has_others([{"CPU": 8.0, "GPU": 2.0}], each)
    assert places.has_others([{"CPU": 1.0}] * 2, {"CPU": 1.0})


def swept(folder):
    """Sweeps on two nodes, the second of which is bad, and keeps what is said."""
    driver = ray.get_runtime_context().get_node_id()
    (bad,) = [one["NodeID"] for one in ray.nodes() if one["NodeID"] != driver]
    Path(os.environ["RAYGRAD_TEST_BAD_NODE"]).write_text(bad)
    logging.getLogger("raygrad").addHandler(logging.FileHandler(folder / "said.txt"))
    layout, data = RunLayout(str(folder / "run")), make_data()
    network = faulty_networks.name("bad_place", folder, 0)
    trials = make_trials(layout, data, network=network, seeds=(0, 1, 2))
    sweep_engine.sweep(SweepConfig(max_failures=0), RECIPE, trials, layout, lambda: data)


@pytest.mark.long(seconds=45)
@pytest.mark.timeout(600)
def test_of_two_nodes_the_one_that_fails_every_trial_costs_none(tmp_path, monkeypatch):
    """It fails them in a moment, and the other takes its time: all that wait would go there."""
    pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAYGRAD_TEST_BAD_NODE", str(tmp_path / "bad_node"))
    on_two_nodes(swept, tmp_path)
    assert pq.read_table(RunLayout(str(tmp_path / "run")).results).num_rows == 6
    said = Counter((tmp_path / "said.txt").read_text().splitlines())
    kept = [line for line in said if "keeps a place that fails from the others" in line]
    assert kept
    assert all("uncorrectable ECC" in line for line in kept)
    assert not [line for line in said if " failed: " in line]
