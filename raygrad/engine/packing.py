"""How many trials the nodes of a cluster can hold at a time, worker by worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from raygrad.errors import ResourceError


@dataclass(frozen=True)
class TrialNeeds:
    """What a trial takes while it runs."""

    num_workers: int
    """Processes of the trial; a group of several trains with DDP."""
    cpus_each: float
    """CPUs of each."""
    gpus_each: float
    """GPUs of each; a fraction packs several workers on one GPU."""

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one worker, as Ray names them."""
        needs = {"CPU": self.cpus_each, "GPU": self.gpus_each}
        return {name: amount for name, amount in needs.items() if amount > 0}


def trials_at_a_time(needs: TrialNeeds, nodes: Sequence[Mapping[str, float]], asked: int) -> int:
    """Returns how many trials run at a time, at most `asked` (0: as many as fit).

    A worker stands on one node; a trial's workers may stand on several. Trials are placed whole or
    not at all, so that trials which hold a part of what they need never wait for each other.

    Args:
        needs: What one trial takes.
        nodes: The resources of each node.
        asked: The user's limit.

    Raises:
        ResourceError: Not even one trial fits; the text spells the sum out.
    """
    workers = [_workers_on(node, needs) for node in nodes]
    fitting = sum(workers) // needs.num_workers
    if fitting < 1:
        raise ResourceError(
            f"a trial must fit the cluster, got trials of {_sum(needs)} and "
            f"{_offer(nodes, workers)}. Lower --workers-per-trial, --cpus-per-worker or "
            "--gpus-per-worker, or join a larger cluster."
        )
    return min(fitting, asked) if asked else fitting


def cluster_nodes() -> list[dict[str, float]]:
    """Returns the resources of every living node of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _workers_on(node: Mapping[str, float], needs: TrialNeeds) -> int:
    fitting = [int(node.get("CPU", 0.0) / needs.cpus_each + 1e-9)]
    if 0 < needs.gpus_each < 1:
        # A worker's fraction is of one GPU: what two GPUs have left does not add up.
        fitting.append(int(node.get("GPU", 0.0)) * int(1 / needs.gpus_each + 1e-9))
    elif needs.gpus_each:
        fitting.append(int(node.get("GPU", 0.0) / needs.gpus_each + 1e-9))
    return min(fitting)


def _sum(needs: TrialNeeds) -> str:
    parts = [
        f"{needs.num_workers} x {each:g} {name} = {needs.num_workers * each:g} {name}"
        for name, each in needs.bundle.items()
    ]
    return f"{needs.num_workers} worker{'s' * (needs.num_workers > 1)}: " + " and ".join(parts)


def _offer(nodes: Sequence[Mapping[str, float]], workers: Sequence[int]) -> str:
    offers = [
        f"{node.get('CPU', 0.0):g} CPU and {node.get('GPU', 0.0):g} GPU (holds {fit})"
        for node, fit in zip(nodes, workers, strict=True)
    ]
    return f"room for {sum(workers)} on {len(offers)} node{'s' * (len(offers) != 1)}: " + ", ".join(
        offers[:5] + ["..."] * (len(offers) > 5)
    )
