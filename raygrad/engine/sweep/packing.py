"""How many trials the nodes of a cluster can hold at a time, worker by worker."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raygrad.engine.nodes import held_by, kind_of
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


def trials_at_a_time(
    needs: TrialNeeds,
    nodes: Sequence[Mapping[str, float]],
    asked: int,
    promised: Sequence[Mapping[str, float]] = (),
) -> int:
    """Returns how many trials run at a time, at most `asked` (0: as many as fit).

    A worker stands on one node; a trial's workers may stand on several. Trials are placed whole or
    not at all, so that trials which hold a part of what they need never wait for each other.

    Args:
        needs: What one trial takes.
        nodes: The resources of each node.
        asked: The user's limit.
        promised: The resources of each node that the cluster's autoscaler may add.

    Raises:
        ResourceError: Not even one trial fits; the text spells the sum out.
    """
    fitting = sum(held_by(node, needs.bundle) for node in (*nodes, *promised)) // needs.num_workers
    if fitting < 1:
        more = f", and {_offer(promised, needs)} that the autoscaler may add" if promised else ""
        raise ResourceError(
            f"a trial must fit the cluster, got trials of {_sum(needs)} and "
            f"{_offer(nodes, needs)}{more}. Lower --workers-per-trial, --cpus-per-worker or "
            "--gpus-per-worker, or join a larger cluster."
        )
    return min(fitting, asked) if asked else fitting


def _sum(needs: TrialNeeds) -> str:
    parts = [
        f"{needs.num_workers} x {each:g} {name} = {needs.num_workers * each:g} {name}"
        for name, each in needs.bundle.items()
    ]
    return f"{needs.num_workers} worker{'s' * (needs.num_workers > 1)}: " + " and ".join(parts)


def _offer(nodes: Sequence[Mapping[str, float]], needs: TrialNeeds) -> str:
    kinds = Counter(kind_of(node) for node in nodes)
    offers = [
        f"{f'{count} x ' if count > 1 else ''}{cpus:g} CPU and {gpus:g} GPU "
        f"(holds {held_by({'CPU': cpus, 'GPU': gpus}, needs.bundle)})"
        for (cpus, gpus), count in kinds.items()
    ]
    room = sum(held_by(node, needs.bundle) for node in nodes)
    return f"room for {room} on {len(nodes)} node{'s' * (len(nodes) != 1)}: " + ", ".join(
        offers[:5] + ["..."] * (len(offers) > 5)
    )
