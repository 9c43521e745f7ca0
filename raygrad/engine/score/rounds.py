"""Which shards a further pool of actors tries, and how often each may be tried."""

from collections import Counter
from typing import final

from raygrad.errors import RaygradError

_MAX_IDLE = 3
"""Pools one after the other that settle no shard at all."""


@final
class Rounds:
    """The shards that one pool after the other is left with.

    Args:
        max_tries: How many pools may fail with a shard.
    """

    def __init__(self, max_tries: int) -> None:
        self._max_tries = max_tries
        self._tries: Counter[str] = Counter()
        self._again: list[str] = []
        self._has_moved = False
        self._num_idle = 0

    @property
    def num_failed(self) -> int:
        """How many tries have failed and were followed by another."""
        return self._tries.total()

    def moved(self) -> None:
        """Notes that a shard is settled: scored, or given up."""
        self._has_moved = True

    def failed(self, shard: str) -> bool:
        """Notes that a try has failed; returns whether there is another."""
        self._has_moved = True
        if self._tries[shard] + 1 >= self._max_tries:
            return False
        self._tries[shard] += 1
        self._again.append(shard)
        return True

    def returned(self, shard: str) -> None:
        """Notes that a shard was not tried, as the place that had it is set aside."""
        self._again.append(shard)

    def again(self) -> list[str]:
        """Returns the shards for another pool, and begins to count for it.

        Raises:
            RaygradError: Pools do nothing but give shards back.
        """
        self._num_idle = 0 if self._has_moved else self._num_idle + 1
        if self._again and self._num_idle >= _MAX_IDLE:
            raise RaygradError(
                f"one of {_MAX_IDLE} pools of actors must settle a shard, got "
                f"{len(self._again)} shards that places which are set aside gave back. "
                "Mend those nodes, or run again on others; parts that are there are kept."
            )
        self._has_moved, again = False, self._again
        self._again = []
        return again
