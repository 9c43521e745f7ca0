"""Images are on the disks of nodes before a training's or a sweep's workers hold the nodes."""

import dataclasses
import logging
import os
from types import SimpleNamespace

import pytest
import ray
from ray import NodeID

from raygrad.config import SweepConfig, TrainConfig
from raygrad.engine import decoding
from raygrad.engine.decoding import Room, decode_before, room_on_disks
from raygrad.engine.sweep.job import sweep
from raygrad.engine.train.job import train
from raygrad.engine.waiting import Need
from raygrad.errors import IncompleteError, ResourceError, StorageRefusedError
from raygrad.runs.layout import RunLayout
from tests.engine.sweep.sweeping import RECIPE, make_trials
from tests.engine.train.training_tasks import TracedSource, make_sharded, make_task

CONFIG = TrainConfig(network="linear", epochs=1, num_workers=2, lr_decay_epochs=())
MOST = Need(2, {"CPU": 1.0})
"""All that the workers of a training of `CONFIG` take."""


@pytest.fixture
def source(ray_session, tmp_path):
    """The images of four shards, kept on disk, each opening of which is traced."""
    _, streamed = make_sharded(tmp_path)
    return TracedSource.on_disk(streamed, tmp_path)


def decode_here(source, wait_s=60.0):
    node = ray.get_runtime_context().get_node_id()
    decode_before("train", source, MOST, [node, node], wait_s)


def test_no_rank_holds_its_place_while_a_node_decodes(source, tmp_path):
    """One process decodes while no placement group is there, then both ranks find all decoded."""
    metrics = train(make_task(tmp_path / "disk", CONFIG), source)
    assert metrics["world_size"] == 2
    first, *ranks = source.events
    assert first["decodes"]
    assert first["groups"] == 0
    assert [(one["decodes"], one["groups"]) for one in ranks] == [(False, 1)] * 2


def test_no_trial_holds_its_place_while_a_node_decodes(ray_session, tmp_path):
    """As in training; trials of two workers find all decoded."""
    memory, streamed = make_sharded(tmp_path)
    source = TracedSource.on_disk(streamed, tmp_path)
    layout = RunLayout(str(tmp_path / "run"))
    trials = make_trials(layout, memory, seeds=(0,))
    config = SweepConfig(workers_per_trial=2)
    assert sweep(config, RECIPE, trials, layout, lambda: source).num_rows == 2
    first, *later = source.events
    assert (first["decodes"], first["groups"]) == (True, 0)
    assert len(later) >= 4
    assert {(one["decodes"], one["groups"]) for one in later} == {(False, 1)}


def test_a_disk_that_is_full_is_said_before_any_worker_starts(source):
    small = dataclasses.replace(source, cache_bytes=10)
    with pytest.raises(ResourceError, match=r"decoded images of .* must fit the node's disk"):
        decode_here(small)
    assert [event["groups"] for event in small.events] == [0]


def test_a_process_that_dies_as_it_decodes_leaves_the_rest_to_the_workers(source, caplog):
    """As a node that is lost: said, and not an end."""
    with caplog.at_level(logging.WARNING, "raygrad"):
        decode_here(dataclasses.replace(source, deaths=1))
    # On a busy machine it may say besides that it waits for what the test before has held.
    assert caplog.text.count("train: a node is left to its workers") == 1
    decode_here(source)
    assert [event["decodes"] for event in source.events] == [True, True]


def test_a_node_that_is_gone_is_left_to_the_workers_as_well(source, caplog):
    with caplog.at_level(logging.WARNING, "raygrad"):
        decode_before("train", source, MOST, [NodeID.from_random().hex()] * 2, 60.0)
    assert "train: a node is left to its workers" in caplog.text
    assert source.events == []


@ray.remote(num_cpus=0)
def ended_by(error):
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("stage", "errors", "is_end"),
    [
        ("train", [ResourceError("full"), None], True),
        ("sweep", [ResourceError("full"), None], False),
        ("sweep", [ResourceError("full"), ResourceError("full")], True),
        ("train", [StorageRefusedError("RequestTimeTooSkewed"), None], False),
        ("sweep", [StorageRefusedError("ExpiredToken")] * 2, False),
    ],
)
def test_one_bad_node_ends_a_training_and_no_sweep(ray_session, caplog, stage, errors, is_end):
    """Trials go on where others cannot; storage that refuses is asked again by the workers."""
    tasks = [ended_by.remote(error) for error in errors]
    needed = len(tasks) if stage == "train" else 1
    with caplog.at_level(logging.WARNING, "raygrad"):
        if is_end:
            with pytest.raises(ResourceError, match="full"):
                decoding._finished(stage, tasks, needed, None)
        else:
            decoding._finished(stage, tasks, needed, None)
            assert f"{stage}: a node is left to its workers" in caplog.text


def test_cpus_that_others_took_meanwhile_are_waited_for_within_the_bound(source):
    holder = ray.remote(num_cpus=1)(_Holder).remote()
    ray.get(holder.pid.remote())
    try:
        with pytest.raises(IncompleteError, match="train must find 2 CPU free within 0 s"):
            decode_here(source, wait_s=0.0)
    finally:
        ray.kill(holder)
    assert source.events == []


class _Holder:
    def pid(self):
        return os.getpid()


def test_a_group_that_may_grow_has_images_on_the_nodes_of_all_it_finds_now(ray_session):
    """Not only of its fewest workers; where others hold some of the room, on those."""
    node = ray.get_runtime_context().get_node_id()
    assert decoding._more_nodes("train", MOST, [node]) == [node, node]
    holder = ray.remote(num_cpus=1)(_Holder).remote()
    ray.get(holder.pid.remote())
    try:
        assert decoding._more_nodes("train", MOST, [node]) == [node]
    finally:
        ray.kill(holder)


def _id(name):
    return name.encode().hex().ljust(56, "0")


class Asked:
    """A Ray of three nodes that work, one of which is lost, and a head that does not."""

    exceptions = ray.exceptions

    def __init__(self, rooms):
        self._rooms, self.asked = rooms, []

    def nodes(self):
        names = [*self._rooms, "head"]
        return [
            {
                "NodeID": _id(name),
                "NodeManagerHostname": name,
                "Alive": True,
                "Resources": {} if name == "head" else {"CPU": 1.0},
                "Labels": {"disk": "own"} if name != "other" else {},
            }
            for name in names
        ]

    def remote(self, num_cpus, scheduling_strategy):
        (name,) = [one for one in self._rooms if _id(one) == scheduling_strategy.node_id]
        assert (num_cpus, scheduling_strategy.soft) == (0, False)

        def ask(folder, most_bytes):
            self.asked.append(name)
            return name

        return lambda function: SimpleNamespace(remote=ask)

    def wait(self, asked, num_returns, timeout):
        return [one for one in asked if self._rooms[one] != "silent"], []

    def get(self, name):
        if self._rooms[name] == "lost":
            raise ray.exceptions.NodeDiedError("its node has died")
        return self._rooms[name]


@pytest.mark.parametrize(
    ("rooms", "found"),
    [
        ({"a": 30, "b": 20, "other": 1}, Room(20, "on b, which has least of 2")),
        ({"a": 30, "b": "lost", "c": "silent"}, Room(30, "on a")),
        ({"a": "lost"}, Room(7, "here, as no node that works could be asked")),
        ({}, Room(7, "here, as no node that works could be asked")),
    ],
)
def test_the_nodes_that_workers_may_stand_on_are_asked_for_the_room_of_their_disks(
    rooms, found, monkeypatch
):
    """And not the head, where the driver stands."""
    there = Asked(rooms)
    monkeypatch.setattr(decoding, "ray", there)
    monkeypatch.setattr(decoding, "ensure_ray", lambda: None)
    monkeypatch.setattr(decoding, "joins_cluster", lambda: True)
    monkeypatch.setattr(decoding, "room_for_pixels", lambda *_: 7)
    assert room_on_disks("/images", 0, ["disk=own"]) == found
    assert {"head", "other"}.isdisjoint(there.asked)


def test_a_ray_of_ones_own_keeps_images_here(monkeypatch):
    monkeypatch.setattr(decoding, "joins_cluster", lambda: False)
    monkeypatch.setattr(decoding, "room_for_pixels", lambda *_: 7)
    assert room_on_disks("/images", 0, ()) == Room(7, "here")
