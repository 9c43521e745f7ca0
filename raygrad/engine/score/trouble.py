"""What a user is told while something goes wrong that the job bears: once, and not too often."""

import logging
import time
from typing import final

import ray

from raygrad.engine.score.blame import Place
from raygrad.engine.score.board import BoardState

log = logging.getLogger("raygrad")

_SAY_S = 30.0


@final
class TroubleTelling:
    """Tells of places that are set aside or taken back, of storage, and of actors' warnings.

    Args:
        stage: Its name, which every line begins with.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._aside: dict[Place, str] = {}
        self._said_s = float("-inf")
        self._waits = False

    @property
    def aside(self) -> list[Place]:
        """The places that are set aside now."""
        return list(self._aside)

    @property
    def lines(self) -> list[str]:
        """Each of them, as a reader finds it, and why."""
        return list(self._aside.values())

    def tell(self, state: BoardState) -> None:
        """Says what is new."""
        for warning in state.said:
            log.warning("%s: %s", self._stage, warning)
        now = dict(state.aside)
        for place in now.keys() - self._aside.keys():
            said = (now[place].splitlines() or [""])[0]
            self._aside[place] = line = f"{_name(place)}: {said}"
            log.warning("%s: set aside, the job goes on with the others: %s", self._stage, line)
        for place in self._aside.keys() - now.keys():
            log.warning("%s: %s works again: a shard was to blame", self._stage, _name(place))
            del self._aside[place]
        if state.storage is None:
            if self._waits:
                log.info("%s: storage answers again", self._stage)
            self._waits = False
        elif time.monotonic() - self._said_s >= _SAY_S:
            waited_s, error = state.storage
            self._waits, self._said_s = True, time.monotonic()
            log.warning("%s: waits for storage, %.0f s so far: %s", self._stage, waited_s, error)


def _name(place: Place) -> str:
    """Returns a place as a reader finds it on the cluster."""
    names: dict[str, str] = {one["NodeID"]: one["NodeManagerHostname"] for one in ray.nodes()}
    host = names.get(place.node, "a node that is gone")
    gpu = f" GPU {place.gpu}" if place.gpu else ""
    return f"{host}{gpu} (node {place.node[:12]})"
