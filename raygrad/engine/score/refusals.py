"""Nodes that storage refuses what it gives to others: their clock is far off, or they lack a right.

A token that has expired is refused everywhere at about the same time, and is waited for. One node
that is refused alone would be waited for too, with the shards that it holds, until the job is given
up for them.
"""

from collections import Counter
from collections.abc import Collection
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
        self._unreadable: dict[str, set[str]] = {}
        self._read_elsewhere: dict[str, set[str]] = {}
        self._finished: Counter[str] = Counter()

    def built(self, node: str) -> None:
        """Notes that storage gave a node what an actor is built of."""
        self._of.pop(node, None)

    def finished(self, node: str, shard: str) -> None:
        """Notes that storage gave a node a shard, and took its part."""
        self._of.pop(node, None)
        self._read_elsewhere.pop(node, None)
        self._finished[node] += 1
        for other in self._unreadable.pop(shard, set()) - {node}:
            self._read_elsewhere.setdefault(other, set()).add(shard)

    def is_of(
        self, node: str, shard: str, others: Collection[str], now_s: float, *, of_object: bool
    ) -> bool:
        """Notes a refusal; tells whether the node is to blame, and not storage or a shard.

        Args:
            node: Where something was refused.
            shard: For which shard; empty where an actor was built.
            others: The other nodes on which work is done or could be.
            now_s: The time.
            of_object: The object was refused, not the credentials or the clock: that tells of the
                node only where others could read what it could not.
        """
        if of_object and shard:
            self._unreadable.setdefault(shard, set()).add(node)
            return len(self._read_elsewhere.get(node, ())) >= _SHARDS
        here = self._of.setdefault(node, _Refused(now_s))
        here.shards.add(shard)
        may_be_shards = "" not in here.shards and len(here.shards) < _SHARDS
        if may_be_shards or now_s - here.since_s < _SURE_S:
            return False
        given = self._finished.total() - self._finished[node]
        if here.given is None:
            here.given = given
        # Who is set aside or gone asks no more, and is nobody else who is refused.
        nobody_else = self._of.keys().isdisjoint(others) and now_s - here.since_s >= ALONE_S
        return given > here.given or nobody_else
