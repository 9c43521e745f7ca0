"""The one policy of where stages stand, decided from the shapes of nodes alone."""

import pytest

from raygrad.config import ScoreConfig, SweepConfig, TrainConfig
from raygrad.config.nodes import is_selected, selector_of
from raygrad.engine import nodes as engine_nodes
from raygrad.engine.nodes import Offer, held_by, offer_of
from raygrad.engine.placement import place_scoring, place_sweep, place_training
from raygrad.errors import ConfigError, IncompleteError, ResourceError


def nodes(*shapes):
    """Returns nodes of (CPUs, GPUs), each so many times."""
    return [{"CPU": float(c), "GPU": float(g)} for c, g, n in shapes for _ in range(n)]


def offer(*shapes, promised=()):
    return Offer(nodes(*shapes), nodes(*promised))


LAPTOP = offer((2, 0, 1))
ONE_GPU = offer((16, 1, 1))
FOUR_GPUS = offer((64, 4, 1))
EIGHT_GPUS = offer((96, 8, 1))
T4S_AND_A_CPU_NODE = offer((4, 1, 10), (16, 0, 1))
SMALL_GPU_AND_LARGE_CPU = offer((4, 1, 1), (64, 0, 1))
MIXED = offer((16, 1, 3), (48, 4, 2))
GPUS_WITHOUT_CPUS = offer((0, 4, 1), (16, 0, 1))
YET_TO_COME = offer((0, 0, 1), promised=((16, 1, 32), (48, 4, 8)))


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (LAPTOP, {}, ("cpu", 2)),
        (offer((1, 0, 1)), {}, ("cpu", 1)),
        (offer((64, 0, 1)), {}, ("cpu", 2)),
        (offer((64, 0, 1)), {"num_workers": 8}, ("cpu", 8)),
        # One worker of 3 CPUs on each: what two nodes have left does not add up.
        (offer((5, 0, 2)), {"num_workers": 4, "cpus_per_worker": 3}, ("cpu", 2)),
        (ONE_GPU, {}, ("cuda", 1)),
        (ONE_GPU, {"num_workers": 2}, ("cuda", 1)),
        (ONE_GPU, {"num_workers": 2, "device": "cpu"}, ("cpu", 2)),
        (FOUR_GPUS, {"num_workers": 8}, ("cuda", 4)),
        (FOUR_GPUS, {"num_workers": 3}, ("cuda", 3)),
        (EIGHT_GPUS, {}, ("cuda", 8)),
        (EIGHT_GPUS, {"batch_size": 4}, ("cuda", 4)),
        (EIGHT_GPUS, {"cpus_per_worker": 24}, ("cuda", 4)),
        (T4S_AND_A_CPU_NODE, {}, ("cuda", 10)),
        (MIXED, {}, ("cuda", 11)),
        (GPUS_WITHOUT_CPUS, {}, ("cpu", 2)),
        # Where no GPU lives yet: one node of those to come; all of them where a number is named.
        (YET_TO_COME, {}, ("cuda", 4)),
        (YET_TO_COME, {"num_workers": 40}, ("cuda", 40)),
        (YET_TO_COME, {"num_workers": 99}, ("cuda", 64)),
        (offer((16, 2, 1), promised=((16, 2, 5),)), {}, ("cuda", 2)),
        (YET_TO_COME, {"min_workers": 6}, ("cuda", 6)),
    ],
)
def test_training_takes_a_worker_a_gpu_and_never_leaves_gpus_for_cpus(there, asked, expected):
    placed = place_training(TrainConfig(**asked), there)
    assert (placed.device, placed.count) == expected
    assert placed.each.get("GPU", 0) == (expected[0] == "cuda")
    assert there.room(placed.each) >= placed.count


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        # device, actors, CPUs and GPUs of each, threads
        (LAPTOP, {}, ("cpu", 2, 0.9, 0, 1)),
        (offer((8, 0, 1)), {"decode_threads": 3}, ("cpu", 2, 2.7, 0, 3)),
        (ONE_GPU, {}, ("cuda", 1, 7.2, 1, 8)),
        (ONE_GPU, {"device": "cpu"}, ("cpu", 17, 0.9, 0, 1)),
        (EIGHT_GPUS, {}, ("cuda", 8, 7.2, 1, 8)),
        (offer((192, 8, 1)), {}, ("cuda", 8, 7.2, 1, 8)),
        (T4S_AND_A_CPU_NODE, {}, ("cuda", 10, 3.6, 1, 4)),
        (SMALL_GPU_AND_LARGE_CPU, {}, ("cuda", 1, 3.6, 1, 4)),
        (offer((8, 1, 2), (64, 0, 2)), {}, ("cuda", 2, 7.2, 1, 8)),
        (offer((16, 2, 2)), {"actors_per_gpu": 2}, ("cuda", 8, 3.6, 0.5, 4)),
        (offer((4, 1, 10), (96, 8, 1)), {}, ("cuda", 18, 3.6, 1, 4)),
        # Two GPUs a CPU: every GPU still gets its actor, of half a CPU.
        (offer((2, 4, 1)), {}, ("cuda", 4, 0.45, 1, 1)),
        (GPUS_WITHOUT_CPUS, {}, ("cpu", 17, 0.9, 0, 1)),
        (YET_TO_COME, {}, ("cuda", 64, 7.2, 1, 8)),
        (offer((4, 1, 1), (16, 1, 1)), {"decode_threads": 8}, ("cuda", 1, 7.2, 1, 8)),
    ],
)
def test_scoring_takes_an_actor_a_gpu_with_cpus_that_its_node_has(there, asked, expected):
    placed = place_scoring(ScoreConfig(**asked), there)
    cpus, gpus = placed.each["CPU"], placed.each.get("GPU", 0)
    assert (placed.device, placed.count, placed.threads) == (*expected[:2], expected[4])
    assert (cpus, gpus) == pytest.approx(expected[2:4])
    assert any(held_by(node, placed.each) for node in there.nodes)


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (LAPTOP, {}, ("cpu", 2, 1, 0)),
        (offer((2, 0, 1)), {"cpus_per_worker": 0.5}, ("cpu", 4, 0.5, 0)),
        (ONE_GPU, {}, ("cuda", 1, 1, 1)),
        (ONE_GPU, {"gpus_per_worker": 0}, ("cpu", 16, 1, 0)),
        (ONE_GPU, {"device": "cpu"}, ("cpu", 16, 1, 0)),
        (ONE_GPU, {"gpus_per_worker": 0.25}, ("cuda", 4, 1, 0.25)),
        # 0.4 fits twice on each; what is left of two GPUs does not add up.
        (FOUR_GPUS, {"gpus_per_worker": 0.4}, ("cuda", 8, 1, 0.4)),
        (EIGHT_GPUS, {}, ("cuda", 8, 1, 1)),
        (EIGHT_GPUS, {"workers_per_trial": 4}, ("cuda", 2, 1, 1)),
        (EIGHT_GPUS, {"max_concurrent": 3}, ("cuda", 3, 1, 1)),
        (T4S_AND_A_CPU_NODE, {}, ("cuda", 10, 1, 1)),
        (GPUS_WITHOUT_CPUS, {}, ("cpu", 16, 1, 0)),
        (YET_TO_COME, {}, ("cuda", 64, 1, 1)),
    ],
)
def test_a_trial_takes_a_gpu_where_there_are_any(there, asked, expected):
    placed = place_sweep(SweepConfig(**asked), there)
    each = placed.each["CPU"], placed.each.get("GPU", 0)
    assert (placed.device, placed.count, *each) == expected


@pytest.mark.parametrize(
    ("place", "config", "there", "said"),
    [
        (place_training, TrainConfig(device="cuda"), LAPTOP, "needs a GPU, got a cluster without"),
        (place_scoring, ScoreConfig(device="cuda"), LAPTOP, "needs a GPU, got a cluster without"),
        (place_sweep, SweepConfig(device="cuda"), LAPTOP, "needs a GPU, got a cluster without"),
        (place_sweep, SweepConfig(gpus_per_worker=1), LAPTOP, "1 x 1 GPU = 1 GPU .*0 GPU"),
        (place_sweep, SweepConfig(workers_per_trial=4), ONE_GPU, "4 x 1 GPU = 4 GPU .*1 GPU"),
        (place_training, TrainConfig(cpus_per_worker=4), LAPTOP, "at least 4 CPU, got 2 CPU"),
        (
            place_training,
            TrainConfig(device="cuda", cpus_per_worker=32),
            T4S_AND_A_CPU_NODE,
            "at least 32 CPU beside a GPU, got 56 CPU, 16 on the largest node",
        ),
        (
            place_scoring,
            ScoreConfig(device="cuda", decode_threads=8),
            T4S_AND_A_CPU_NODE,
            "at least 7.2 CPU beside a GPU, got 56 CPU",
        ),
        (
            place_training,
            TrainConfig(),
            Offer([], labels={"raygrad": "train"}),
            "got 0 CPU, 0 on the largest node among nodes of raygrad=train",
        ),
    ],
)
def test_what_fits_nowhere_is_refused_with_what_there_is(place, config, there, said):
    with pytest.raises(ResourceError, match=said):
        place(config, there)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers_per_trial": 2, "gpus_per_worker": 0.5}, "several workers, which cannot share"),
        ({"gpus_per_worker": 1.5}, "whole where it is above 1"),
        ({"gpus_per_worker": -1}, "at least 0"),
        ({"gpus_per_worker": 1, "device": "cpu"}, "of the device, cpu, got 1"),
        ({"gpus_per_worker": 0, "device": "cuda"}, "of the device, cuda, got 0"),
        ({"nodes": ("raygrad",)}, "labels, NAME=VALUE, got 'raygrad'"),
        ({"nodes": ("a=b", "a=c")}, "must not repeat"),
        ({"nodes": ("a=in(b, c",)}, "NAME=VALUE"),
    ],
)
def test_a_sweep_that_contradicts_itself_is_refused_by_name(options, said):
    with pytest.raises(ConfigError, match=said):
        SweepConfig(**options)


@pytest.mark.parametrize(
    ("placed", "line"),
    [
        (
            place_scoring(ScoreConfig(), offer((16, 2, 2))),
            "score: 4 actors on cuda, 1 GPU and 7.2 CPU each: 2 nodes of 2 GPU, 16 CPU",
        ),
        (
            place_training(TrainConfig(num_workers=8), FOUR_GPUS),
            "train: 4 workers instead of 8 on cuda, 1 GPU and 1 CPU each: 1 node of 4 GPU, 64 CPU",
        ),
        (
            place_training(TrainConfig(), GPUS_WITHOUT_CPUS),
            "train: 2 workers on cpu, 1 CPU each: 1 node of 16 CPU; "
            "4 GPU idle: no node has 1 CPU beside 1 GPU",
        ),
        (
            place_sweep(SweepConfig(workers_per_trial=2), offer((8, 2, 1), promised=((8, 2, 3),))),
            "sweep: 4 trials on cuda, 2 workers, 1 GPU and 1 CPU each: "
            "1 node of 2 GPU, 8 CPU, may grow by 3 nodes of 2 GPU, 8 CPU",
        ),
        (
            place_sweep(SweepConfig(), Offer(nodes((4, 0, 1)), labels={"raygrad": "train"})),
            "sweep: 4 trials on cpu, 1 CPU each: 1 node of 4 CPU among nodes of raygrad=train",
        ),
        (
            place_training(TrainConfig(), YET_TO_COME),
            "train: 4 workers on cuda, 1 GPU and 1 CPU each: no node yet, may grow by "
            "32 nodes of 1 GPU, 16 CPU and 8 nodes of 4 GPU, 48 CPU",
        ),
    ],
)
def test_what_was_decided_is_one_line(placed, line):
    assert placed.line() == line


@pytest.mark.parametrize(
    ("asked", "labels", "expected"),
    [
        ("raygrad=score", {"raygrad": "score"}, True),
        ("raygrad=score", {"raygrad": "train"}, False),
        ("raygrad=score", {}, False),
        ("raygrad=!score", {"raygrad": "train"}, True),
        ("raygrad=!score", {}, True),
        ("raygrad=in(score,train)", {"raygrad": "train"}, True),
        ("raygrad=!in(score,train)", {"raygrad": "train"}, False),
        ("ray.io/market-type=spot", {"ray.io/market-type": "spot"}, True),
    ],
)
def test_labels_are_understood_as_ray_does(asked, labels, expected):
    assert is_selected(labels, selector_of((asked,))) == expected


@pytest.mark.parametrize("asked", [(), ("zone=a",)])
def test_an_own_ray_whose_node_has_gone_is_told_apart_from_one_without_cpus(monkeypatch, asked):
    """It has no CPU either, and more of them are not what it takes."""
    gone = [{"Alive": False, "Resources": {"CPU": 2.0}, "Labels": {"zone": "a"}}]
    monkeypatch.setattr(engine_nodes.ray, "nodes", lambda: gone)
    monkeypatch.setattr(engine_nodes, "promised_nodes", list)
    monkeypatch.setattr(engine_nodes, "_may_wait_s", [0.0])
    with pytest.raises(IncompleteError, match=r"a node that lives, got none of 1: its node.*again"):
        offer_of(asked)
    alive = [{"Alive": True, "Resources": {"memory": 1.0}, "Labels": {}}]
    monkeypatch.setattr(engine_nodes.ray, "nodes", lambda: alive + gone)
    with pytest.raises(ResourceError, match="got 0 CPU"):
        place_training(TrainConfig(), offer_of(asked))


def test_a_cluster_that_has_just_begun_is_asked_again_until_it_has_a_cpu(monkeypatch, caplog):
    """A job that begins with its cluster was refused: its head without work was there alone."""
    head = {"Alive": True, "Resources": {"memory": 1.0}}
    worker = {"Alive": True, "Resources": {"CPU": 2.0}}
    known = [head]
    monkeypatch.setattr(engine_nodes.ray, "nodes", lambda: list(known))
    monkeypatch.setattr(engine_nodes, "promised_nodes", list)
    monkeypatch.setattr(engine_nodes, "_may_wait_s", left := [engine_nodes._FIRST_CPU_WITHIN_S])
    monkeypatch.setattr(engine_nodes.time, "sleep", lambda _: known.append(worker))
    assert offer_of().total("CPU") == 2.0
    assert "the cluster has no CPU yet" in caplog.text
    known[:] = [head]
    monkeypatch.setattr(engine_nodes.time, "sleep", lambda _: None)
    assert offer_of().total("CPU") == 0.0
    assert left == [0.0], "once in a process"
    assert offer_of().total("CPU") == 0.0
