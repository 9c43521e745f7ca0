"""The nodes of a cluster: those that live, and those that its autoscaler may add."""

from collections import Counter
from collections.abc import Mapping

import ray

from raygrad.engine import ray_private

MOST_PROMISED = 1000
"""Nodes that a group without a bound is taken to grow to."""


def living_nodes() -> list[dict[str, float]]:
    """Returns the resources of every living node of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def promised_nodes() -> list[dict[str, float]]:
    """Returns the resources of every node that the cluster's autoscaler may add to it.

    A living node is taken to be of the first group that has its CPUs and GPUs.
    """
    living = Counter(kind_of(node) for node in living_nodes())
    promised = []
    for resources, count in ray_private.autoscaler_groups():
        most = MOST_PROMISED if count is None else count
        there = min(living[kind_of(resources)], most)
        living[kind_of(resources)] -= there
        promised += [resources] * (most - there)
    return promised


def kind_of(node: Mapping[str, float]) -> tuple[float, float]:
    """Returns what tells kinds of nodes apart: CPUs and GPUs."""
    return node.get("CPU", 0.0), node.get("GPU", 0.0)
