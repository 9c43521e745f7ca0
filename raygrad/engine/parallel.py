"""A parallel map over Ray tasks, for the per-shard steps of the data floor."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from raygrad.engine.session import cluster_capacity, fitting_workers

MAX_UNDER_WAY = 1024
"""An autoscaler without a bound must not make one of nothing."""

FEW = 4
"""Items that are done sooner here than a process is started that imports what they need."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def ray_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Applies a function to items in parallel on the cluster, results in the items' order.

    At most two tasks a CPU are under way, so that neither the scheduler nor the object store
    holds more than that however many items there are.

    Raises:
        ResourceError: The cluster has no CPU for a task.
    """
    call, shared = ray.remote(num_cpus=1)(_call), ray.put(function)
    fitting_workers(1, "tasks")
    window = 2 * min(int(cluster_capacity()["CPU"]), MAX_UNDER_WAY)
    pending: list[Any] = []
    for item in items:
        pending.append(call.remote(shared, item))
        if len(pending) >= window:
            yield _result(pending.pop(0))
    while pending:
        yield _result(pending.pop(0))


def few_here(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Applies a function to a few items in this process, and to more of them as `ray_map` does.

    For work that waits for storage more than it computes, such as reading the headers of shards.
    """
    rest = iter(items)
    first = list(itertools.islice(rest, FEW + 1))
    if len(first) <= FEW:
        return map(function, first)
    return ray_map(function, itertools.chain(first, rest))


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # The task's own error, not Ray's wrapper with its remote stack.
        raise error.cause from error
