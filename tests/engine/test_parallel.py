import functools
from types import SimpleNamespace

import pytest

from raygrad.engine import parallel, waiting
from raygrad.engine.parallel import few_here, ray_map
from raygrad.engine.waiting import Need
from raygrad.errors import DataError


def scaled(item, factor):
    return item * factor


def failing(item):
    if item == 2:
        raise DataError("item must not be 2, got 2.")
    return item


def test_it_is_map_in_order_also_for_partials_and_more_items_than_cpus(ray_session):
    double = functools.partial(scaled, factor=2)
    for at_once in (1, 2, 9, 20):
        assert list(ray_map(double, range(9), at_once=at_once)) == list(map(double, range(9)))
    assert list(ray_map(double, [], at_once=3)) == []


def test_a_tasks_own_error_comes_out(ray_session):
    with pytest.raises(DataError, match="must not be 2"):
        list(ray_map(failing, range(4)))
    with pytest.raises(DataError, match="must not be 2"):
        list(ray_map(failing, range(4), at_once=4))


def test_tasks_that_take_no_cpu_do_not_wait_for_those_that_others_have(ray_session):
    """As at the end of a stage on a busy cluster, where a task of one CPU waits in silence."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    taken = placement_group([{"CPU": 1.0}] * 2)
    ray.get(taken.ready())
    try:
        double = functools.partial(scaled, factor=2)
        assert list(ray_map(double, range(9), at_once=2, cpus=0.0)) == list(map(double, range(9)))
    finally:
        remove_placement_group(taken)


class NoResultYet:
    """A Ray with a task that does not end before nodes were looked at so often."""

    def __init__(self, looks):
        self.looks = looks

    def wait(self, references, timeout):
        self.looks -= 1
        return ([], references) if self.looks >= 0 else (references, [])

    def get(self, reference):
        return [reference]


@pytest.mark.parametrize(
    ("living", "each", "said"),
    [([{"CPU": 1.0}], 1.0, 0), ([], 1.0, 3), ([{"CPU": 0.0}], 1.0, 3), ([{"CPU": 0.0}], 0.0, 0)],
    ids=["a long task", "no node", "none with a CPU", "a task without a CPU"],
)
def test_a_result_that_no_node_can_give_is_waited_for_aloud(living, each, said, monkeypatch):
    """One that takes long is not: who holds the CPUs may be this very task."""
    monkeypatch.setattr(parallel, "ray", NoResultYet(3))
    monkeypatch.setattr(waiting, "living_nodes", lambda _: living)
    still = []
    patience = SimpleNamespace(still=lambda: still.append(1), over=still.clear)
    assert parallel._results("result", Need(1, {"CPU": each}), patience) == ["result"]
    assert len(still) == said


@pytest.mark.parametrize(("count", "there"), [(0, False), (4, False), (5, True)])
def test_a_few_items_are_done_here_and_more_of_them_on_the_cluster(count, there, monkeypatch):
    sent = []
    monkeypatch.setattr(
        parallel, "ray_map", lambda function, items, *_: map(function, sent.append(1) or items)
    )
    double = functools.partial(scaled, factor=2)
    assert list(few_here(double, iter(range(count)))) == list(map(double, range(count)))
    assert bool(sent) is there
    assert list(few_here(double, range(9), few=9)) == list(map(double, range(9)))
    assert bool(sent) is there, "as many as are said to be few"
