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
    function: Callable[[Item], Result], items: Iterable[Item], nodes: Sequence[str] = ()
) -> Iterator[Result]:
    """Applies a function to items in parallel on the cluster, results in the items' order.

    At most two tasks a CPU are under way, so that neither the scheduler nor the object store
    holds more than that however many items there are.

    Args:
        function: What each task does.
        items: What it is given, one at a time.
        nodes: Labels of the nodes that tasks may stand on, as the configuration has them.

    Raises:
        ResourceError: The cluster has no CPU for a task.
    """
    offer = offer_of(nodes)
    room = offer.room({"CPU": 1.0})
    if room < 1:
        raise ResourceError(
            f"tasks need at least 1 CPU, got a cluster with {offer.total('CPU'):g}{offer.where}. "
            "Start Ray with more CPUs (`ray start --num-cpus`) or join a larger cluster."
        )
    where = {"label_selector": dict(offer.labels)} if offer.labels else {}
    call, shared = ray.remote(num_cpus=1, **where)(_call), ray.put(function)
    window = 2 * min(room, MAX_UNDER_WAY)
    pending: list[Any] = []
    for item in items:
        pending.append(call.remote(shared, item))
        if len(pending) >= window:
            yield _result(pending.pop(0))
    while pending:
        yield _result(pending.pop(0))


def few_here(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    nodes: Sequence[str] = (),
    few: int = FEW,
) -> Iterator[Result]:
    """Applies a function to a few items in this process, and to more of them as `ray_map` does.

    For work that waits for storage more than it computes, such as reading the headers of shards.
    """
    rest = iter(items)
    first = list(itertools.islice(rest, few + 1))
    if len(first) <= few:
        return map(function, first)
    return ray_map(function, itertools.chain(first, rest), nodes)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # The task's own error, not Ray's wrapper with its remote stack.
        raise error.cause from error
