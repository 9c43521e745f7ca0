"""Images decoded onto the disks of nodes before a training or trials hold their GPUs there."""

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrad import stopping
from raygrad.config.nodes import is_selected, selector_of
from raygrad.data.decoded_cache import room_for_pixels
from raygrad.engine.nodes import held_by
from raygrad.engine.retries import final_error
from raygrad.engine.session import ensure_ray, joins_cluster
from raygrad.engine.waiting import Need, Waiting, wait_for
from raygrad.errors import IncompleteError, StorageRefusedError
from raygrad.training.study_data import StudySource

log = logging.getLogger("raygrad")

_POLL_S = 1.0
_ASK_S = 60.0
"""A node that does not say within so long how much room its disk has is not waited for."""


@dataclass(frozen=True)
class Room:
    """How many bytes of decoded images the disk with least room may hold, and whose it is."""

    num_bytes: int
    """Of the disk with the least room."""
    where: str
    """How a sentence goes on that says where that is: here, or on which node."""


def room_on_disks(folder: str, most_bytes: int, nodes: Sequence[str]) -> Room:
    """Returns the least room of the disks that workers will keep decoded images on.

    Where this process starts a Ray of its own that is the disk here. On a cluster each node that
    workers may stand on is asked: the driver's, often a head without work, need not be one.

    Args:
        folder: As of `room_for_pixels`.
        most_bytes: As of `room_for_pixels`.
        nodes: Labels of the nodes that workers may stand on, as the configuration has them.

    Raises:
        ResourceError: Nobody answers at RAY_ADDRESS.
    """
    if not joins_cluster():
        return Room(room_for_pixels(folder, most_bytes), "here")
    ensure_ray()
    hosts = {
        node["NodeID"]: node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU")
        and is_selected(node.get("Labels") or {}, selector_of(nodes))
    }
    asked = {_ask_room(node, folder, most_bytes): host for node, host in hosts.items()}
    answered = ray.wait(list(asked), num_returns=len(asked), timeout=_ASK_S)[0] if asked else []
    rooms = []
    for one in answered:
        with contextlib.suppress(ray.exceptions.RayError):  # a node that is lost is not trained on
            rooms.append((ray.get(one), asked[one]))
    if not rooms:
        here = room_for_pixels(folder, most_bytes)
        return Room(here, "here, as no node that works could be asked")
    least, host = min(rooms)
    return Room(least, f"on {host}, which has least of {len(rooms)}" if rooms[1:] else f"on {host}")


def _ask_room(node: str, folder: str, most_bytes: int) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    asking = ray.remote(num_cpus=0, scheduling_strategy=there)(room_for_pixels)
    return asking.remote(folder, most_bytes)


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
