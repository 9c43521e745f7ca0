"""The nodes of a cluster: those that live, and those that its autoscaler may add."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from raygrad.config.nodes import is_selected, selector_of
from raygrad.engine import ray_private
from raygrad.errors import IncompleteError

log = logging.getLogger("raygrad")

MOST_PROMISED = 1000
"""Nodes that a group without a bound is taken to grow to."""

_FIRST_CPU_WITHIN_S, _ASK_S = 60.0, 0.25
_may_wait_s = [_FIRST_CPU_WITHIN_S]
"""What is left of the time that this process waits for a cluster's first CPU."""

Resources = Mapping[str, float]
"""What a node has or a process takes, as Ray names it."""


def living_nodes(selector: Mapping[str, str] | None = None) -> list[dict[str, float]]:
    """Returns the resources of every living node of the cluster, of those that are selected.

    Args:
        selector: What labels must be, by name; None for any.

    Raises:
        IncompleteError: No node lives, not even this one: it has ended since Ray was started.
    """
    nodes = ray.nodes()
    living = [node for node in nodes if node["Alive"]]
    if nodes and not living:
        raise IncompleteError(
            f"Ray must have a node that lives, got none of {len(nodes)}: its node, or one of the "
            "node's own processes, has ended (killed, as a machine does that runs out of memory?). "
            "What is done is kept: run the same line again."
        )
    return [
        node["Resources"]
        for node in living
        if is_selected(node.get("Labels") or {}, dict(selector or {}))
    ]


def promised_nodes() -> list[dict[str, float]]:
    """Returns the resources of every node that the cluster's autoscaler may add to it.

    A living node is taken to be of the first group that has its CPUs and GPUs. The labels of nodes
    that are not there yet are not told by Ray: any of them may be one that is selected.
    """
    living = Counter(kind_of(node) for node in living_nodes())
    promised = []
    for resources, count in ray_private.autoscaler_groups():
        most = MOST_PROMISED if count is None else count
        there = min(living[kind_of(resources)], most)
        living[kind_of(resources)] -= there
        promised += [resources] * (most - there)
    return promised


def kind_of(node: Resources) -> tuple[float, float]:
    """Returns what tells kinds of nodes apart: CPUs and GPUs."""
    return node.get("CPU", 0.0), node.get("GPU", 0.0)


def held_by(node: Resources, each: Resources) -> int:
    """Returns how many processes, each of these resources, a node holds.

    A fraction of a GPU is of one GPU: what two GPUs have left does not add up.
    """
    fitting = []
    for name, of in each.items():
        there = node.get(name, 0.0)
        if name == "GPU" and 0 < of < 1:
            fitting.append(int(there) * int(1 / of + 1e-9))
        elif of > 0:
            fitting.append(int(there / of + 1e-9))
    return min(fitting, default=0)


@dataclass(frozen=True)
class Offer:
    """The nodes that a stage may stand on."""

    living: Sequence[Resources]
    """The resources of each that is there."""
    promised: Sequence[Resources] = ()
    """The resources of each that an autoscaler may add."""
    labels: Mapping[str, str] | None = None
    """What their labels were asked to be."""

    @property
    def nodes(self) -> list[Resources]:
        """All of them."""
        return [*self.living, *self.promised]

    @property
    def where(self) -> str:
        """How a sentence goes on that names them, where they are not all."""
        if not self.labels:
            return ""
        return " among nodes of " + ", ".join(f"{k}={v}" for k, v in self.labels.items())

    def room(self, each: Resources) -> int:
        """Returns how many processes, each of these resources, they hold together."""
        return sum(held_by(node, each) for node in self.nodes)

    def total(self, name: str) -> float:
        """Returns how much of a resource they have together."""
        return sum(node.get(name, 0.0) for node in self.nodes)


def offer_of(nodes: Sequence[str] = ()) -> Offer:
    """Returns what the cluster offers to a stage that is tied to nodes of these labels."""
    return offer_to(selector_of(nodes))


def offer_to(selector: Mapping[str, str]) -> Offer:
    """Returns what the nodes that are selected offer.

    A cluster without a CPU, and none that may come, has just begun: its head without work is known
    sooner than its first worker. That is waited for, a minute in a process.
    """
    while True:
        offer = Offer(living_nodes(selector), promised_nodes(), selector)
        if offer.total("CPU") or _may_wait_s[0] <= 0:
            return offer
        if any(node.get("CPU") for node in living_nodes()):
            return offer  # those that have some are not selected
        if _may_wait_s[0] == _FIRST_CPU_WITHIN_S:
            log.warning("the cluster has no CPU yet: waits %.0f s for one", _may_wait_s[0])
        time.sleep(_ASK_S)
        _may_wait_s[0] -= _ASK_S
