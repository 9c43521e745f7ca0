"""Images decoded onto the disks of nodes before a training or trials hold their GPUs there."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrad import stopping
from raygrad.engine.nodes import held_by
from raygrad.engine.retries import final_error
from raygrad.engine.waiting import Need, Waiting, wait_for
from raygrad.errors import IncompleteError, StorageRefusedError
from raygrad.training.study_data import StudySource

log = logging.getLogger("raygrad")

_POLL_S = 1.0


class _Decoder:
    """Stands on one node with the CPUs of the workers that will stand there, and none of its GPUs.

    An actor and no task, so that one that has no room yet is told from one that is at work.
    """

    def begin(self) -> None:
        """Returns as soon as there is room for it."""

    def decode(self, source: StudySource) -> None:
        """Has the images on this node's disk, where they stay."""
        source.open()


def decode_before(
    stage: str, source: StudySource, most: Need, nodes: Sequence[str], wait_s: float
) -> None:
    """Has a data set decoded on every node that workers will stand on, each by one process.

    What goes wrong in passing, as a node that is lost or storage that is away, is left to the
    workers: they decode what is missing, and are tried again as at any other time. So do nodes that
    an elastic group is given later, or that Ray chooses in place of these.

    Args:
        stage: train or sweep, whose workers, also those of several trials, they are.
        source: The data set.
        most: As many of them as will be, where there is room.
        nodes: Ids of the nodes on which Ray would have put the fewest that can begin.
        wait_s: How long CPUs are waited for at most.

    Raises:
        IncompleteError: There was no room in time.
        RaygradError: What workers would find as well, such as a disk that is full: of a training on
            any node, of a sweep on all.
    """
    workers = Counter(_more_nodes(stage, most, nodes))
    where = "1 node" if len(workers) == 1 else f"{len(workers)} nodes"
    log.info("%s: images are on the disk of %s before the workers begin", stage, where)
    shares = {node: count * most.each["CPU"] for node, count in workers.items()}
    decoders = {node: _start(node, cpus) for node, cpus in shares.items()}
    need = Need(len(shares), {"CPU": min(shares.values())}, most.labels)
    try:
        begun = [one.begin.remote() for one in decoders.values()]
        needed = len(workers) if stage == "train" else 1
        _finished(stage, begun, needed, Waiting(stage, need, wait_s))
        given = ray.put(source)
        _finished(stage, [one.decode.remote(given) for one in decoders.values()], needed, None)
    finally:
        for one in decoders.values():
            ray.kill(one)


def _more_nodes(stage: str, most: Need, nodes: Sequence[str]) -> Sequence[str]:
    """Returns the nodes of as many workers as there is room for now, where more may come."""
    there = sum(held_by(node, most.each) for node in most.offer.living)
    count = min(most.count, there)
    if count > len(nodes):
        try:
            return wait_for(stage, Need(count, most.each, most.labels), 0.0)
        except IncompleteError:
            log.info("%s: begins with fewer workers, as others use the cluster", stage)
    return nodes


def _start(node: str, cpus: float) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=cpus, scheduling_strategy=there)(_Decoder).remote()


def _finished(stage: str, tasks: list[Any], needed: int, waiting: Waiting | None) -> None:
    """Returns when all tasks have ended; says, while one has not, what is waited for.

    Args:
        stage: As of `decode_before`.
        tasks: One a node.
        needed: So many nodes must be able to: all of a training, one of a sweep, whose trials go on
            there.
        waiting: Tells what is waited for.

    Raises:
        RaygradError: Too few are, as the others found what another attempt would find again.
    """
    left = len(tasks)
    while tasks:
        ended, tasks = ray.wait(tasks, timeout=_POLL_S)
        for one in ended:
            try:
                ray.get(one)
            except ray.exceptions.RayError as error:
                final = final_error([error])
                # Storage that refuses may let in again, and workers are tried again.
                is_final = final is not None and not isinstance(final, StorageRefusedError)
                left -= is_final
                if final is not None and left < needed:
                    raise final from error
                log.warning(
                    "%s: a node is left to its workers, as it could not decode before them: %s",
                    stage,
                    str(error).strip().splitlines()[-1],
                )
        stopping.go_on()
        if waiting is not None and tasks:
            waiting.still()
