"""A parallel map over Ray tasks, for the per-shard steps of the data floor."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from raygrad import stopping
from raygrad.config import DEFAULT_WAIT_S
from raygrad.engine.nodes import offer_of
from raygrad.engine.waiting import Need, Waiting, has_nodes_for, wait_for
from raygrad.errors import ResourceError

MAX_UNDER_WAY = 1024
"""An autoscaler without a bound must not make one of nothing."""

_POLL_S = 1.0
"""A result that takes longer is waited for in such steps, between which nodes are looked at."""

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
    stage: str = "prepare",
    wait_s: float = DEFAULT_WAIT_S,
) -> Iterator[Result]:
    """Applies a function to items in parallel on the cluster, results in the items' order.

    At most two tasks a CPU are under way, so that neither the scheduler nor the object store
    holds more than that however many items there are. A CPU that others hold is waited for at the
    start, and nodes that are lost meanwhile; both are said, and bounded.

    Args:
        function: What each task does.
        items: What it is given, one at a time.
        nodes: Labels of the nodes that tasks may stand on, as the configuration has them.
        at_once: Items that one task does, one after the other: a task costs the driver a
            millisecond or two, whatever it does.
        cpus: CPUs of each task; none for what is asked of storage alone, at the end of a stage:
            it begins whoever has the CPUs, and is not waited for.
        stage: Its name, which a line that says what is waited for begins with.
        wait_s: How long room is waited for at most.

    Raises:
        ResourceError: The cluster has no CPU for a task that takes some.
        IncompleteError: There was no room for a task in time.
    """
    offer = offer_of(nodes)
    room = offer.room({"CPU": 1.0})
    if cpus and room < 1:
        raise ResourceError(
            f"tasks need at least 1 CPU, got a cluster with {offer.total('CPU'):g}{offer.where}. "
            "Start Ray with more CPUs (`ray start --num-cpus`) or join a larger cluster."
        )
    labels = dict(offer.labels or {})
    need = Need(1, {"CPU": cpus}, labels)
    if cpus and not _is_free(need):
        wait_for(stage, need, wait_s)
    waiting = Waiting(stage, need, wait_s)
    where = {"label_selector": labels} if labels else {}
    call, shared = ray.remote(num_cpus=cpus, **where)(_call), ray.put(function)
    window = 2 * max(1, min(room, MAX_UNDER_WAY))
    pending: list[Any] = []
    rest = iter(items)
    while several := list(itertools.islice(rest, at_once)):
        pending.append(call.remote(shared, several))
        if len(pending) >= window:
            yield from _results(pending.pop(0), need, waiting)
    while pending:
        yield from _results(pending.pop(0), need, waiting)


def few_here(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    nodes: Sequence[str] = (),
    few: int = FEW,
    at_once: int = 1,
    stage: str = "prepare",
    wait_s: float = DEFAULT_WAIT_S,
) -> Iterator[Result]:
    """Applies a function to a few items in this process, and to more of them as `ray_map` does.

    For work that waits for storage more than it computes, such as reading the headers of shards.
    """
    rest = iter(items)
    first = list(itertools.islice(rest, few + 1))
    if len(first) <= few:
        return map(function, first)
    return ray_map(function, itertools.chain(first, rest), nodes, at_once, 1.0, stage, wait_s)


def _call(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def _is_free(need: Need) -> bool:
    """Tells whether there is room for sure; of labels it is not known which nodes have it."""
    return not need.labels and ray.available_resources().get("CPU", 0.0) >= need.each["CPU"]


def _results(reference: Any, need: Need, waiting: Waiting) -> list[Any]:
    while not ray.wait([reference], timeout=_POLL_S)[0]:
        stopping.go_on()
        if has_nodes_for(need):
            waiting.over()
        else:
            waiting.still()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # The task's own error, not Ray's wrapper with its remote stack.
        raise error.cause from error
