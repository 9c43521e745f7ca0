"""Images are on the disks of nodes before a training's or a sweep's workers hold the nodes."""

import dataclasses
import logging
import os

import pytest
import ray
from ray import NodeID

from raygrad.config import SweepConfig, TrainConfig
from raygrad.engine import decoding
from raygrad.engine.decoding import decode_before
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
