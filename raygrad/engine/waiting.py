"""How every stage waits for room on the cluster: what it needs, what is there, and for how long.

A stage that cannot be placed says so every half minute and ends after a bound; without both, Ray
waits for ever and in silence, for a GPU that others hold as for a node that will not come.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from raygrad import stopping
from raygrad.engine.nodes import Offer, held_by, living_nodes, offer_to
from raygrad.errors import IncompleteError, ResourceError

log = logging.getLogger("raygrad")

SAY_S = 30.0
"""Seconds between two lines of a stage that waits."""

_FIRST_S = 10.0
"""What is placed this soon was not waited for: the stage before gives its processes back first."""
_LEAST_S = 3.0
"""What a bound of 0 allows for: asking takes a moment."""
_POLL_S = 1.0


@dataclass(frozen=True)
class Need:
    """What has to be free at the same time before a stage can work."""

    count: int
    """How many processes."""
    each: Mapping[str, float]
    """The resources of each, as Ray names them."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the labels of the nodes must be that they stand on, by name."""

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The same as the bundles of a placement group."""
        return [dict(self.each)] * self.count

    def __str__(self) -> str:
        """Returns it as ``2 x (1 CPU and 1 GPU)``."""
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.each.items())
        if self.count > 1:
            each = f"{self.count} x ({each})" if len(self.each) > 1 else f"{self.count} x {each}"
        return each + self.offer.where

    @property
    def offer(self) -> Offer:
        """The nodes that they may stand on."""
        return offer_to(self.labels)

    def group(self) -> Any:
        """Asks for a placement group of all of them."""
        selectors = [dict(self.labels)] * self.count if self.labels else None
        return placement_group(self.bundles, bundle_label_selector=selectors)


class Waiting:
    """The patience of a stage: says what it waits for, and ends it after a bound.

    Args:
        stage: Its name, which every line begins with.
        need: What it waits for.
        bound_s: How long at most; infinite is for ever.
    """

    def __init__(self, stage: str, need: Need, bound_s: float) -> None:
        self._stage, self._need, self._bound_s = stage, need, bound_s
        self._since_s: float | None = None
        self._said_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether the last that was told was that nothing is at work."""
        return self._since_s is not None

    def over(self) -> None:
        """Notes that something is at work."""
        self._since_s = None

    def still(self, so_far_s: float | None = None) -> None:
        """Notes that nothing is at work, and says so where it is time to.

        Args:
            so_far_s: For how long; by default since this was first called, or since `over`.

        Raises:
            IncompleteError: It has lasted longer than the bound.
            KeyboardInterrupt: The command was asked to stop, and Ray lost what said so.
        """
        stopping.go_on()
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s if so_far_s is None else now_s - so_far_s
            self._said_s = self._since_s + _FIRST_S - SAY_S
        waited_s = now_s - self._since_s
        if waited_s >= max(self._bound_s, _LEAST_S):
            raise IncompleteError(
                f"{self._stage} must find {self._need} free within {self._bound_s:g} s, got "
                f"{offer(self._need)}. Run again when there is room, or wait longer: --wait-s."
            )
        if now_s - self._said_s >= SAY_S:
            self._said_s = now_s
            log.warning(
                "%s: waits for %s; %s; %.0f s so far",
                self._stage,
                self._need,
                offer(self._need),
                waited_s,
            )


def offer(need: Need) -> str:
    """Returns what the cluster has of what is needed, what of it is free, and what may come."""
    nodes, free = need.offer, ray.available_resources()
    has = [
        f"{sum(node.get(name, 0.0) for node in nodes.living):g} {name}"
        # What is free is known of the whole cluster alone.
        + ("" if need.labels else f" ({free.get(name, 0.0):g} free)")
        for name in need.each
    ]
    grows = [
        f"{more:g} {name}"
        for name in need.each
        if (more := sum(node.get(name, 0.0) for node in nodes.promised))
    ]
    may = f", may grow by {' and '.join(grows)}" if grows else ""
    return f"the cluster has {' and '.join(has)}{nodes.where}{may}"


def check_ever(stage: str, need: Need) -> None:
    """Raises unless the nodes that there are, and may come, could hold what is needed.

    Raises:
        ResourceError: They could not, were all of them free.
    """
    nodes = need.offer.nodes
    if sum(held_by(node, need.each) for node in nodes) < need.count:
        largest = max(
            nodes, key=lambda node: tuple(node.get(name, 0.0) for name in need.each), default={}
        )
        one = " and ".join(f"{largest.get(name, 0.0):g} {name}" for name in need.each)
        raise ResourceError(
            f"{stage} needs {need}, got {offer(need)}, {one} on its largest node. "
            "Ask for less, or join a larger cluster."
        )


def wait_for(stage: str, need: Need, bound_s: float) -> list[str]:
    """Returns once what a stage needs is free at the same time.

    It is asked for as a placement group, which an autoscaler sees too, and given back at once.

    Args:
        stage: As of `Waiting`.
        need: As of `Waiting`.
        bound_s: As of `Waiting`.

    Returns:
        The id of the node on which each process would have stood: Ray would place the same again,
        unless the cluster changes meanwhile.

    Raises:
        ResourceError: The cluster can never hold it.
        IncompleteError: It was not free in time.
    """
    with granted(stage, need, 1, bound_s, 0.0) as groups:
        return list(placement_group_table(groups[0])["bundles_to_node_id"].values())


@contextlib.contextmanager
def granted(
    stage: str, need: Need, count: int, bound_s: float, more_s: float
) -> Iterator[Sequence[Any]]:
    """Gives placement groups, each of what is needed, as many as come; removes them at the end.

    Args:
        stage: As of `Waiting`.
        need: What each group holds.
        count: How many are asked for.
        bound_s: How long the first one is waited for at most.
        more_s: How long the others are waited for once there is one.

    Raises:
        ResourceError: The cluster can never hold one.
        IncompleteError: None was free in time.
    """
    check_ever(stage, need)
    groups = [need.group() for _ in range(count)]
    try:
        yield _first_ready(Waiting(stage, need, bound_s), groups, more_s)
    finally:
        for group in groups:
            remove_placement_group(group)


def _first_ready(waiting: Waiting, groups: Sequence[Any], more_s: float) -> list[Any]:
    ready: list[Any] = []
    deadline_s = float("inf")
    while True:
        # The first is asked with patience, as asking is what waits; the others in passing.
        lacking = [group for group in groups if group not in ready]
        for at, group in enumerate(lacking):
            if group.wait(0 if ready or at else _POLL_S):
                ready.append(group)
        if len(ready) == len(groups):
            return ready
        if ready:
            deadline_s = min(deadline_s, time.monotonic() + more_s)
            if time.monotonic() >= deadline_s:
                return ready
            time.sleep(min(_POLL_S, more_s))
        else:
            waiting.still()


@contextlib.contextmanager
def watched(
    waiting: Waiting, need: Need, give_up: Callable[[], None]
) -> Iterator[list[IncompleteError]]:
    """Says of this job, while the context lasts, when none of its placement groups has room.

    For work that waits in Ray's own loop, as Ray Train does when it starts workers again.

    Args:
        waiting: The stage's patience.
        need: The least that it needs. An elastic group below it asks Ray for no placement group.
        give_up: Ends the work; called once, on a thread, when patience is over.

    Yields:
        A list, which then holds the error to raise.
    """
    ended, given_up = threading.Event(), list[IncompleteError]()

    def watch() -> None:
        while not ended.wait(_POLL_S):
            # Where Ray itself is lost, the work has its own way of noticing.
            with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
                try:
                    if _is_unplaced(need):
                        waiting.still()
                    else:
                        waiting.over()
                except IncompleteError as error:
                    given_up.append(error)
                    give_up()
                    return

    thread = threading.Thread(target=watch, daemon=True, name="raygrad-waiting")
    thread.start()
    try:
        yield given_up
    finally:
        ended.set()
        thread.join()


def _is_unplaced(need: Need) -> bool:
    """Tells whether this job waits for a placement group, or for nodes to ask for one on."""
    job = ray.get_runtime_context().get_job_id()
    # A group's id ends with that of the job that made it.
    states = {row["state"] for name, row in placement_group_table().items() if name.endswith(job)}
    if "CREATED" in states:
        return False
    # Between two groups, and before the first, none is there for a moment, for which nodes are.
    return bool(states & {"PENDING", "RESCHEDULING"}) or not has_nodes_for(need)


def has_nodes_for(need: Need) -> bool:
    """Tells whether living nodes could hold what is needed, were all of them free.

    Raises:
        IncompleteError: No node lives, not even this one.
    """
    nodes = living_nodes(need.labels)
    if not any(need.each.values()):
        return bool(nodes)
    return sum(held_by(node, need.each) for node in nodes) >= need.count
