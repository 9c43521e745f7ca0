"""What the driver and its actors know of each other: attempts, progress, faults and who is alive.

One small Ray actor on the driver's node. It remembers a shard only while it is under way or went
wrong, so that its memory grows with the actors and not with the data set.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrad.config.nodes import is_selected
from raygrad.engine.nodes import held_by
from raygrad.engine.score.blame import Blame, Place, Verdict
from raygrad.engine.score.faults import Fault
from raygrad.engine.waiting import Need

Standing = Literal["work", "hold", "return"]
"""work: an actor may; hold: its place is set aside, and it keeps its shards from nobody; return:
nobody else is at work, so that it gives its shards back."""

_QUIET_S = 3.0
"""Others that have had nothing under way for so long are done with what there was for them."""
_STARTS_S = 20.0
"""Others may take so long to begin."""
_LOST_S = 3.0
"""Which nodes are gone is asked so often at most: a large cluster has much to say."""
_MOST_SAID = 20
"""Different warnings of actors that are told, of a whole job."""
_ENDED = 2**13
"""Of so many shards it is known that they are counted. An actor that dies has settled some of those
that it was called for, and they are found by the next that is."""


@dataclass
class _Attempt:
    actor_id: str
    place: Place
    died: int = 0
    """Attempts before this one that ended with their actor."""
    count: int = 0
    """Examples done in this attempt."""
    had_company: bool = False
    """Whether its actor had another shard under way when it died."""
    is_excused: bool = False
    """Whether its actor ended itself, for no fault of the shard's."""


@dataclass(frozen=True)
class BoardState:
    """What the driver shows and decides by."""

    done: int
    """Examples done, in finished shards and in those under way."""
    actors: int
    """Actors that have a shard under way, on nodes that live."""
    retries: int
    """Shards that were begun again after their actor died."""
    idle_s: float
    """Seconds since any actor told of progress."""
    aside: tuple[tuple[Place, str], ...] = ()
    """Places that are set aside, and the last error of each."""
    storage: tuple[float, str] | None = None
    """For how long storage has withheld all that it was asked for, and what it said."""
    most_actors: int = 0
    """Actors that had a shard under way at the same time, the most of all moments."""
    said: tuple[str, ...] = ()
    """What actors warned of since the last time that this was read."""


class Board:
    """Counts attempts, progress and faults; see `start_board`.

    Args:
        need: What an actor needs, to know which nodes could hold one.
        wait_s: How long storage is waited for while it gives nothing to anybody.
        num_finished: How many shards had their part before.
    """

    def __init__(self, need: Need, wait_s: float, num_finished: int) -> None:
        self._need, self._wait_s, self._blame = need, wait_s, Blame(num_finished)
        self._under_way: dict[str, _Attempt] = {}
        self._builds: dict[str, int] = {}
        self._places: dict[str, Place] = {}
        self._finished = self._retries = self._most_actors = 0
        self._ended: dict[str, None] = {}
        self._lost: set[str] = set()
        self._lost_s = float("-inf")
        self._storage_said = ""
        self._said: dict[str, bool] = {}
        self.new_pool()

    def new_pool(self) -> None:
        """Notes that other actors begin, with the shards that are left."""
        self._under_way.clear()
        self._builds.clear()
        self._places.clear()
        self._last_s = self._pool_s = self._busy_s = time.monotonic()
        self._has_begun = False

    def build(self, actor_id: str, place: Place) -> int:
        """Notes that an actor builds its networks; returns how often it died of that before."""
        self._last_s = time.monotonic()
        self._places[actor_id] = place
        self._builds[actor_id] = died = self._builds.get(actor_id, -1) + 1
        return died

    def suspects(self, actor_id: str) -> list[str]:
        """Returns the shards that an actor had under way when it died, if it did.

        Of two it is not known which it died of. Each is to be under way alone from then on: then
        no other shard counts another death.
        """
        found = {
            shard: one
            for shard, one in self._under_way.items()
            if one.actor_id == actor_id and not one.is_excused
        }
        for attempt in found.values():
            attempt.had_company = len(found) > 1
        return list(found)

    def built(self, actor_id: str, *, is_right: bool) -> None:
        """Notes that it has come to an end with it, and whether it has them."""
        self._last_s = time.monotonic()
        self._builds.pop(actor_id, None)
        if is_right and actor_id in self._places:
            self._blame.built(self._places[actor_id])

    def standing(self, actor_id: str, place: Place) -> Standing:
        """Returns what an actor at a place is to do."""
        now_s = time.monotonic()
        self._places[actor_id] = place
        if not self._blame.is_aside(place):
            return "work"
        alive = _living()
        if any(
            not self._blame.is_aside(one.place) and one.place.node in alive
            for one in self._under_way.values()
        ):
            self._busy_s = now_s
        starts = not self._has_begun and now_s - self._pool_s < _STARTS_S
        return "hold" if starts or now_s - self._busy_s < _QUIET_S else "return"

    def begin(self, shard: str, actor_id: str, place: Place) -> tuple[int, Verdict] | None:
        """Notes that an actor begins a shard; returns how many died of it before, and whose fault.

        None where the actor's place is set aside: it begins nothing. An actor that is gone with
        its whole node did not die of its shard; nor did one that ended itself. Where the verdict
        is not ``wait``, the shard is not to be scored here.
        """
        if self._blame.is_aside(place):
            return None
        self._last_s = now_s = time.monotonic()
        self._has_begun = True
        self._places[actor_id] = place  # a board that was started again knows of none
        before, died = self._under_way.get(shard), 0
        verdict: Verdict = "wait"
        if before is not None:
            self._retries += 1
            is_death = not before.is_excused and before.place.node in _living()
            died = before.died + is_death
            # One death of an actor is told of its place once, when it is known of which shard.
            if is_death and not before.had_company:
                others = self._others(before.place)
                verdict = self._blame.death(before.place, shard, died, others, now_s)
        self._under_way[shard] = _Attempt(actor_id, place, died)
        self._most_actors = max(self._most_actors, self._num_actors())
        return died, verdict

    def fault(
        self, fault: Fault, actor_id: str, place: Place, shard: str, error: str, refused: bool
    ) -> Verdict:
        """Judges what an actor at a place could not do; see `Blame`."""
        self._last_s = now_s = time.monotonic()
        self._places[actor_id] = place
        if fault == "data":
            return "final"
        if fault == "shard":
            return "failed"
        if fault == "code":
            return self._blame.code(place, shard, self._others(place))
        if fault == "storage":
            self._storage_said = error
            others = self._others(place)
            return self._blame.storage(
                place, shard, error, others, now_s, refused=refused, wait_s=self._wait_s
            )
        judge = self._blame.device if fault == "device" else self._blame.setup
        return judge(place, shard, error, self._others(place), now_s)

    def leave(self, actor_id: str) -> None:
        """Notes that an actor ends itself: none of its shards is to blame."""
        for attempt in self._under_way.values():
            attempt.is_excused |= attempt.actor_id == actor_id

    def progress(self, shard: str, count: int) -> None:
        """Notes how many examples of the shard are done."""
        self._last_s = time.monotonic()
        if shard in self._under_way:
            self._under_way[shard].count = count

    def end(self, shard: str, count: int, is_right: bool) -> None:
        """Notes that a shard is done with, how many examples that settles, and whether it is."""
        self._last_s = time.monotonic()
        attempt = self._under_way.pop(shard, None)
        self._finished += 0 if shard in self._ended else count
        if is_right:
            self._ended[shard] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]
        if is_right and attempt is not None:
            self._blame.finished(shard, attempt.place)

    def say(self, warning: str) -> None:
        """Notes what an actor warns of; not of each of very many."""
        if len(self._said) < _MOST_SAID:
            self._said.setdefault(warning, False)

    def _new_said(self) -> tuple[str, ...]:
        new = tuple(one for one, is_read in self._said.items() if not is_read)
        self._said.update(dict.fromkeys(new, True))
        return new

    def read(self) -> BoardState:
        """Returns the present state."""
        attempts, now_s = self._under_way.values(), time.monotonic()
        self._look_for_lost(now_s)
        since_s = self._blame.storage_since_s
        return BoardState(
            self._finished + sum(attempt.count for attempt in attempts),
            self._num_actors(),
            self._retries,
            now_s - self._last_s,
            tuple(self._blame.aside.items()),
            None if since_s is None else (now_s - since_s, self._storage_said),
            self._most_actors,
            self._new_said(),
        )

    def _num_actors(self) -> int:
        attempts = self._under_way.values()
        return len({one.actor_id for one in attempts if one.place.node not in self._lost})

    def _look_for_lost(self, now_s: float) -> None:
        """Notes whose nodes are gone: their attempts stay until an actor begins them again."""
        if self._under_way and now_s - self._lost_s >= _LOST_S:
            self._lost_s, alive = now_s, _living()
            self._lost = {one.place.node for one in self._under_way.values()} - alive.keys()

    def _others(self, place: Place) -> list[Place]:
        """Returns where else actors stand or could."""
        nodes = [
            node["NodeID"]
            for node in _living().values()
            if is_selected(node.get("Labels") or {}, dict(self._need.labels))
            and held_by(node["Resources"], self._need.each) > 0
        ]
        here = [one for one in self._places.values() if one.node == place.node]
        return [*here, *(Place(node) for node in nodes if node != place.node)]


def _living() -> dict[str, Any]:
    """Returns what Ray says of every living node, by its id."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def start_board(need: Need, wait_s: float, num_finished: int) -> Any:
    """Starts a board on the driver's node, which lives as long as the job does."""
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
    return ray.remote(**options)(Board).remote(need, wait_s, num_finished)
