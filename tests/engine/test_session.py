"""What the cluster has to offer, also where it has yet to grow."""

import ray

from raygrad.engine.session import cluster_capacity, cluster_grows, fitting_workers


def offer(monkeypatch, now, bounds):
    monkeypatch.setattr(ray, "cluster_resources", lambda: now)
    state = ray._private.state.state
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: bounds)


def test_a_cluster_that_begins_with_no_worker_holds_what_it_may_grow_to(monkeypatch):
    offer(monkeypatch, {"memory": 1.0}, {"CPU": 64, "GPU": 4})
    assert cluster_capacity() == {"memory": 1.0, "CPU": 64.0, "GPU": 4.0}
    assert cluster_grows()
    assert fitting_workers(8, "workers") == 8


def test_without_an_autoscaler_it_holds_what_it_has(monkeypatch):
    offer(monkeypatch, {"CPU": 2.0}, None)
    assert cluster_capacity() == {"CPU": 2.0}
    assert not cluster_grows()
    assert fitting_workers(8, "workers") == 2
