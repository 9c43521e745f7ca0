"""How many trials fit: the arithmetic, and the sentence where none does."""

import types

import pytest
import ray

from raygrad.engine.nodes import MOST_PROMISED, living_nodes, promised_nodes
from raygrad.engine.sweep.packing import TrialNeeds, trials_at_a_time
from raygrad.errors import ResourceError


@pytest.mark.parametrize(
    ("needs", "nodes", "expected"),
    [
        (TrialNeeds(1, 1, 0), [{"CPU": 2}], 2),
        (TrialNeeds(1, 0.5, 0), [{"CPU": 2}], 4),
        (TrialNeeds(1, 0.1, 0), [{"CPU": 1}], 10),
        (TrialNeeds(2, 1, 0), [{"CPU": 3}, {"CPU": 3}], 3),
        # 1.5 CPUs of one node and 1.5 of another do not hold a worker of 2.
        (TrialNeeds(1, 2, 0), [{"CPU": 3}, {"CPU": 3}], 2),
        (TrialNeeds(1, 1, 0.5), [{"CPU": 16, "GPU": 2}], 4),
        # 0.4 of a GPU fits twice on each; what is left of two GPUs does not add up.
        (TrialNeeds(1, 1, 0.4), [{"CPU": 16, "GPU": 2}], 4),
        (TrialNeeds(1, 1, 2), [{"CPU": 16, "GPU": 5}, {"CPU": 64}], 2),
        (TrialNeeds(1, 4, 1), [{"CPU": 16, "GPU": 8}], 4),
    ],
)
def test_trials_that_fit(needs, nodes, expected):
    assert trials_at_a_time(needs, nodes, 0) == expected
    assert trials_at_a_time(needs, nodes, 1) == 1


def test_the_sum_is_spelled_out_where_none_fits():
    with pytest.raises(ResourceError) as error:
        trials_at_a_time(TrialNeeds(4, 2, 1), [{"CPU": 7, "GPU": 1}, {"CPU": 2}], 0)
    assert str(error.value) == (
        "a trial must fit the cluster, got trials of 4 workers: 4 x 2 CPU = 8 CPU and "
        "4 x 1 GPU = 4 GPU and room for 1 on 2 nodes: 7 CPU and 1 GPU (holds 1), "
        "2 CPU and 0 GPU (holds 0). Lower --workers-per-trial, --cpus-per-worker or "
        "--gpus-per-worker, or join a larger cluster."
    )


def room_for_trials(needs, asked):
    return trials_at_a_time(needs, living_nodes(), asked, promised_nodes())


def grow(monkeypatch, living, groups):
    nodes = [{"Alive": True, "Resources": resources} for resources in living]
    configs = [types.SimpleNamespace(resources=r, max_count=most) for r, most in groups]
    found = types.SimpleNamespace(node_group_configs=configs) if groups else None
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    # Of the class: undone, it leaves nothing on the one state that all tests share.
    monkeypatch.setattr(type(ray._private.state.state), "get_cluster_config", lambda state: found)


def test_a_cluster_that_may_grow_holds_the_trials_of_its_nodes_to_come(monkeypatch):
    """One of three nodes of 8 CPUs is there; the head is of no group that grows."""
    grow(monkeypatch, [{"CPU": 2}, {"CPU": 8}], [({"CPU": 8}, 3)])
    assert promised_nodes() == [{"CPU": 8.0}] * 2
    assert room_for_trials(TrialNeeds(1, 4, 0), 0) == 6
    assert room_for_trials(TrialNeeds(1, 4, 0), 5) == 5
    grow(monkeypatch, [{"CPU": 2}], [({"CPU": 8}, -1)])
    assert len(promised_nodes()) == MOST_PROMISED
    grow(monkeypatch, [{"CPU": 2}], [])
    assert promised_nodes() == []


def test_a_trial_too_large_for_all_that_may_come_is_said_at_once(monkeypatch):
    grow(monkeypatch, [{"CPU": 2}], [({"CPU": 8}, 10), ({"CPU": 4, "GPU": 1}, 2)])
    with pytest.raises(ResourceError) as error:
        room_for_trials(TrialNeeds(1, 1, 2), 0)
    assert str(error.value) == (
        "a trial must fit the cluster, got trials of 1 worker: 1 x 1 CPU = 1 CPU and "
        "1 x 2 GPU = 2 GPU and room for 0 on 1 node: 2 CPU and 0 GPU (holds 0), and room for 0 on "
        "12 nodes: 10 x 8 CPU and 0 GPU (holds 0), 2 x 4 CPU and 1 GPU (holds 0) that the "
        "autoscaler may add. Lower --workers-per-trial, --cpus-per-worker or --gpus-per-worker, "
        "or join a larger cluster."
    )
