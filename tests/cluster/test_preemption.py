"""The simulator behind the sizing page, against what can be worked out by hand."""

import importlib.util
import math
import random
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def preemption():
    path = ROOT / "benchmarks" / "preemption.py"
    spec = importlib.util.spec_from_file_location("preemption_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as for a script of that folder
        spec.loader.exec_module(module)
    return module


def test_without_preemptions_the_queue_alone_decides(preemption):
    """Seven shards on three actors are three rounds; uneven ones go to whoever is free."""
    rng = random.Random(0)
    assert preemption.simulate([10.0] * 7, 3, math.inf, 5.0, rng).wall_s == 30.0
    assert preemption.simulate([9.0, 1.0, 1.0, 1.0], 2, math.inf, 5.0, rng).wall_s == 9.0


@pytest.mark.parametrize("mean_life_s", [30.0, 100.0, 1000.0])
@pytest.mark.parametrize("num_actors", [1, 8])
def test_a_shard_takes_what_the_exponential_law_says(preemption, mean_life_s, num_actors):
    """Busy time and losses a shard, with few shards an actor, so that the queue's end counts."""
    shard_s, restart_s, num_shards = 30.0, 7.0, 16
    found = preemption.many(4000, [shard_s] * num_shards, num_actors, mean_life_s, restart_s)
    wasted = statistics.mean(one.wasted_s for one in found) / num_shards
    lost = statistics.mean(one.lost_attempts for one in found) / num_shards
    busy_s = preemption.expected_busy_s(shard_s, mean_life_s)
    assert shard_s + wasted == pytest.approx(busy_s, rel=0.02)
    assert lost == pytest.approx(math.expm1(shard_s / mean_life_s), rel=0.05)
    assert statistics.mean(one.restart_s for one in found) == pytest.approx(
        restart_s * lost * num_shards
    )


def test_one_actor_takes_busy_time_and_restarts_one_after_the_other(preemption):
    found = preemption.many(4000, [30.0] * 4, 1, 100.0, 7.0)
    wall = statistics.mean(one.wall_s for one in found)
    lost = statistics.mean(one.lost_attempts for one in found)
    assert wall == pytest.approx(4 * preemption.expected_busy_s(30.0, 100.0) + 7 * lost, rel=0.02)
