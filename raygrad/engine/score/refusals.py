"""Nodes that storage refuses what it gives to others: their clock is far off, or they lack a right.

A token that has expired is refused everywhere at about the same time, and is waited for. One node
that is refused alone would be waited for too, with the shards that it holds, until the job is given
up for them.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import final

ALONE_S = 60.0
"""For so long storage refuses a node while no other asks until the node is to blame."""

_SURE_S = 20.0
"""What others are given so long after the first refusal was not given before all were refused."""
_SHARDS = 3
"""Fewer that are refused, where nothing else was, may be objects that nobody may read."""


@dataclass
class _Refused:
    since_s: float
    shards: set[str] = field(default_factory=set)
    """What was asked for, each by its shard; an empty name is the building of an actor."""
    given: int | None = None
    """Shards that other nodes had finished when it was first sure."""


@final
class Refusals:
    """Keeps what storage refuses to nodes, and who was given something meanwhile."""

    def __init__(self) -> None:
        self._of: dict[str, _Refused] = {}
        self._finished: Counter[str] = Counter()

    def built(self, node: str) -> None:
        """Notes that storage gave a node what an actor is built of."""
        self._of.pop(node, None)

    def finished(self, node: str) -> None:
        """Notes that storage gave a node a shard, and took its part."""
        self._of.pop(node, None)
        self._finished[node] += 1

    def is_of(self, node: str, shard: str, now_s: float) -> bool:
        """Notes a refusal; tells whether the node is to blame, and not storage or a shard.

        Args:
            node: Where something was refused.
            shard: For which shard; empty where an actor was built.
            now_s: The time.
        """
        here = self._of.setdefault(node, _Refused(now_s))
        here.shards.add(shard)
        may_be_shards = "" not in here.shards and len(here.shards) < _SHARDS
        if may_be_shards or now_s - here.since_s < _SURE_S:
            return False
        given = self._finished.total() - self._finished[node]
        if here.given is None:
            here.given = given
        nobody_else = len(self._of) == 1 and now_s - here.since_s >= ALONE_S
        return given > here.given or nobody_else
