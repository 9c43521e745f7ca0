"""A parallel map over Ray tasks, for the per-shard steps of the data floor."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from raygrad.engine.nodes import offer_of
from raygrad.errors import ResourceError

MAX_UNDER_WAY = 1024
"""An autoscaler without a bound must not make one of nothing."""

FEW = 4
"""Items that are done sooner here than a process is started that imports what they need."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def ray_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    nodes: Sequence[str] = (),
    at_once: int = 1,
    cpus: float = 1.0,
) -> Iterator[Result]:
    """Applies a function to items in parallel on the cluster, results in the items' order.

    At most two tasks a CPU are under way, so that neither the scheduler nor the object store
    holds more than that however many items there are.

    Args:
        function: What each task does.
        items: What it is given, one at a time.
        nodes: Labels of the nodes that tasks may stand on, as the configuration has them.
        at_once: Items that one task does, one after the other: a task costs the driver a
            millisecond or two, whatever it does.
        cpus: CPUs of each task; none for what is asked of storage alone, at the end of a stage:
            it begins whoever has the CPUs, and is not waited for.

    Raises:
        ResourceError: The cluster has no CPU for a task that takes some.
    """
    offer = offer_of(nodes)
    room = offer.room({"CPU": 1.0})
    if cpus and room < 1:
        raise ResourceError(
            f"tasks need at least 1 CPU, got a cluster with {offer.total('CPU'):g}{offer.where}. "
            "Start Ray with more CPUs (`ray start --num-cpus`) or join a larger cluster."
        )
    where = {"label_selector": dict(offer.labels)} if offer.labels else {}
    call, shared = ray.remote(num_cpus=cpus, **where)(_call), ray.put(function)
    window = 2 * max(1, min(room, MAX_UNDER_WAY))
    pending: list[Any] = []
    rest = iter(items)
    while several := list(itertools.islice(rest, at_once)):
        pending.append(call.remote(shared, several))
        if len(pending) >= window:
            yield from _results(pending.pop(0))
    while pending:
        yield from _results(pending.pop(0))


def few_here(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    nodes: Sequence[str] = (),
    few: int = FEW,
    at_once: int = 1,
) -> Iterator[Result]:
    """Applies a function to a few items in this process, and to more of them as `ray_map` does.

    For work that waits for storage more than it computes, such as reading the headers of shards.
    """
    rest = iter(items)
    first = list(itertools.islice(rest, few + 1))
    if len(first) <= few:
        return map(function, first)
    return ray_map(function, itertools.chain(first, rest), nodes, at_once)


def _call(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def _results(reference: Any) -> list[Any]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # The task's own error, not Ray's wrapper with its remote stack.
        raise error.cause from error
