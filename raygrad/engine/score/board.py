"""What the driver and its actors know of each other: attempts, progress and who is alive.

One small Ray actor on the driver's node. It remembers a shard only while it is under way, so that
its memory grows with the actors and not with the data set.
"""

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass
class _Attempt:
    actor_id: str
    node_id: str
    died: int = 0
    """Attempts before this one that ended with their actor."""
    count: int = 0
    """Examples done in this attempt."""


@dataclass(frozen=True)
class BoardState:
    """What the driver shows and decides by."""

    done: int
    """Examples done, in finished shards and in those under way."""
    actors: int
    """Actors that have a shard under way."""
    retries: int
    """Shards that were begun again after their actor died."""
    idle_s: float
    """Seconds since any actor told of progress."""


class Board:
    """Counts attempts and progress of shards; see `start_board`."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Attempt] = {}
        self._builds: dict[str, int] = {}
        self._finished = self._retries = 0
        self._last_s = time.monotonic()

    def build(self, actor_id: str) -> int:
        """Notes that an actor builds its networks; returns how often it died of that before."""
        self._last_s = time.monotonic()
        self._builds[actor_id] = died = self._builds.get(actor_id, -1) + 1
        return died

    def built(self, actor_id: str) -> None:
        """Notes that it has built them."""
        self._last_s = time.monotonic()
        self._builds.pop(actor_id, None)

    def begin(self, shard: str, actor_id: str, node_id: str) -> int:
        """Notes that an actor begins a shard; returns how many died of it before.

        An actor that is gone with its whole node did not die of its shard.
        """
        self._last_s = time.monotonic()
        before, died = self._under_way.get(shard), 0
        if before is not None:
            self._retries += 1
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            died = before.died + (before.node_id in alive)
        self._under_way[shard] = _Attempt(actor_id, node_id, died)
        return died

    def progress(self, shard: str, count: int) -> None:
        """Notes how many examples of the shard are done."""
        self._last_s = time.monotonic()
        if shard in self._under_way:
            self._under_way[shard].count = count

    def end(self, shard: str, count: int) -> None:
        """Notes that a shard is done with, and how many examples that settles."""
        self._last_s = time.monotonic()
        self._under_way.pop(shard, None)
        self._finished += count

    def read(self) -> BoardState:
        """Returns the present state."""
        attempts = self._under_way.values()
        return BoardState(
            self._finished + sum(attempt.count for attempt in attempts),
            len({attempt.actor_id for attempt in attempts}),
            self._retries,
            time.monotonic() - self._last_s,
        )


def start_board() -> Any:
    """Starts a board on the driver's node, which lives as long as the job does."""
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
    return ray.remote(**options)(Board).remote()
