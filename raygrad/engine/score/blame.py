"""Who is to blame for what went wrong on the cluster: a shard, a place, storage, or the set-up.

Plain rules over what actors tell, without Ray. Every rule is of the form: what goes wrong here and
not elsewhere is the place's fault, what goes wrong elsewhere too is not.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, final

from raygrad.engine.score.refusals import Refusals
from raygrad.storage.refusal_codes import names_credentials

MAX_DEATHS = 3
"""A shard, or the building of an actor, that ended as many actors is given up."""
FAULTS_OF_A_PLACE = 2
"""A node, or a GPU of a node with others, that failed so often is set aside."""
REFUSED_S = 300.0
"""How long storage that refuses is waited for; who renews credentials does so in minutes."""

_MEMORY_S = 3600.0
"""A fault that is older is forgotten: one in a day is no sign of a broken device."""
_FRUITLESS = 6
"""So many faults in a row, with no shard finished anywhere and nobody else to try, end the job."""
_SAME_CODE = 8
"""Where the code of so many shards fails and that of none does not, it is not the shards' fault."""
_SHARD_S = 20.0
"""For so long a shard that storage does not give is waited for where it gives others."""
_ALONE_S = 60.0
"""And for so long where nobody has asked for another."""

Verdict = Literal["elsewhere", "wait", "failed", "final", "fatal", "away"]
"""elsewhere: the actor ends itself, its shard is not to blame; wait: try again in a moment; the
others are what becomes of the shard, or of the job: see `ShardStatus`."""


class Place(NamedTuple):
    """Where an actor stands."""

    node: str
    """The id of its node."""
    gpu: str = ""
    """Which of its GPUs it has; empty where it has none."""


@dataclass(frozen=True)
class _Fault:
    place: Place
    shard: str
    at_s: float


@dataclass
class _Storage:
    """What storage has withheld since it last gave a shard whole."""

    since_s: float | None = None
    shards: dict[str, tuple[float, int]] = field(default_factory=dict)
    """When the trouble of each began, and how many shards were finished then."""
    seen: set[str] = field(default_factory=set)
    """Those, and those that were put off."""


@final
class Blame:
    """Keeps what went wrong, and judges what goes wrong next.

    Args:
        num_finished: How many shards were finished before.
    """

    def __init__(self, num_finished: int = 0) -> None:
        self._code: set[tuple[str, str]] = set()
        self._faults: list[_Fault] = []
        self._aside: dict[Place, str] = {}
        self._proven: set[str] = set()
        self._setup: dict[str, str | None] = {}
        self._storage, self._refusals = _Storage(), Refusals()
        self._num_finished, self._in_a_row = num_finished, 0

    @property
    def aside(self) -> dict[Place, str]:
        """The places that are set aside, and why; a node as a whole has no GPU's name."""
        return dict(self._aside)

    @property
    def storage_since_s(self) -> float | None:
        """When storage began to withhold all that it is asked for; None where it does not."""
        return self._storage.since_s

    def is_aside(self, place: Place) -> bool:
        """Tells whether nothing is to be done at a place any more."""
        return place in self._aside or Place(place.node) in self._aside

    def finished(self, shard: str, place: Place) -> None:
        """Notes that a shard was read, scored and written at a place."""
        self._num_finished += 1
        self._in_a_row = 0
        self._proven.add(place.node)
        self._refusals.finished(place.node, shard)
        self._setup.clear()
        self._storage.since_s = None
        self._storage.seen.clear()
        self._storage.shards.pop(shard, None)

    def built(self, place: Place) -> None:
        """Notes that an actor could be built at a place."""
        self._proven.add(place.node)
        self._refusals.built(place.node)

    def device(
        self, place: Place, shard: str, error: str, others: Collection[Place], now_s: float
    ) -> Verdict:
        """Judges an error of a device or a node.

        Args:
            place: Where it happened.
            shard: While this was scored; empty where nothing was.
            error: What it said.
            others: Places where actors stand or could, on living nodes; this one may be among them.
            now_s: The time.
        """
        self._in_a_row += 1
        self._forget(now_s)
        others = [one for one in others if one != place and not self.is_aside(one)]
        if shard and self._is_of_shard(place, shard, others):
            self._forgive(shard)
            return "failed"
        self._faults.append(_Fault(place, shard, now_s))
        self._judge(place, error, others)
        return "fatal" if not others and self._in_a_row >= _FRUITLESS else "elsewhere"

    def death(
        self, place: Place, shard: str, num_deaths: int, others: Collection[Place], now_s: float
    ) -> Verdict:
        """Judges that actors died at a place while they had a shard, without a word.

        Args:
            place: Where the last did.
            shard: The shard.
            num_deaths: How many did, of this pool.
            others: As of `device`.
            now_s: The time.
        """
        others = [one for one in others if one != place and not self.is_aside(one)]
        self._forget(now_s)
        nodes = {one.place.node for one in self._faults if one.shard == shard} | {place.node}
        self._faults.append(_Fault(place, shard, now_s))
        if num_deaths < MAX_DEATHS and len(nodes) == 1:
            return "wait"
        if len(nodes) > 1 or not any(one.node != place.node for one in others):
            self._forgive(shard)
            return "final"
        # The retries of a shard stay with its actor: only another shard's tell of the place.
        if len({one.shard for one in self._faults if one.place == place}) > 1:
            self._judge(place, "actors died there of several shards", others)
        return "failed"

    def setup(
        self, place: Place, shard: str, error: str, others: Collection[Place], now_s: float
    ) -> Verdict:
        """Judges what is likely of how the job is set up: fatal only where different nodes agree.

        Args:
            place: Where it happened.
            shard: While this was scored; empty where an actor was built.
            error: What it said.
            others: As of `device`.
            now_s: The time.
        """
        nodes = {one.node for one in others if one.node != place.node and not self.is_aside(one)}
        agree = [
            node
            for node, of_shard in self._setup.items()
            if node != place.node and (of_shard != shard or not shard)
        ]
        self._setup[place.node] = shard or None
        on_own = not nodes and (shard or place.node not in self._proven)
        # Networks that others could build are no wrong ones, however many nodes cannot.
        if on_own or (agree and (shard or not self._proven & nodes)):
            return "fatal"
        verdict = self.device(place, shard, error, others, now_s)
        if verdict == "failed":
            self._setup = {node: of for node, of in self._setup.items() if of != shard}
        return verdict

    def code(self, place: Place, shard: str, others: Collection[Place]) -> Verdict:
        """Judges that code has failed with a shard, that of the network as a rule.

        Args:
            place: Where it did.
            shard: The shard.
            others: As of `device`.
        """
        if self._num_finished:
            return "failed"
        self._code.add((place.node, shard))
        nodes = {node for node, _ in self._code}
        is_everywhere = len(nodes) > 1 or all(one.node == place.node for one in others)
        is_everything = len({one for _, one in self._code}) >= _SAME_CODE
        return "fatal" if is_everywhere and is_everything else "failed"

    def storage(
        self,
        place: Place,
        shard: str,
        error: str,
        others: Collection[Place],
        now_s: float,
        *,
        refused: bool,
        wait_s: float,
    ) -> Verdict:
        """Judges that storage did not give, or take, what a shard needs.

        Args:
            place: Where it happened.
            shard: The shard; empty where an actor was built.
            error: What it said.
            others: As of `device`.
            now_s: The time.
            refused: It answered, and refused.
            wait_s: How long a job waits.
        """
        nodes = {one.node for one in others if one.node != place.node and not self.is_aside(one)}
        if (
            refused
            and nodes
            and self._refusals.is_of(
                place.node, shard, nodes, now_s, of_object=not names_credentials(error)
            )
        ):
            return self.device(place, "", error, others, now_s)
        storage = self._storage
        if storage.since_s is None:
            storage.since_s = now_s
        since_s, finished = storage.shards.setdefault(shard, (now_s, self._num_finished))
        storage.seen.add(shard)
        of_shard = self._num_finished > finished and now_s - since_s >= _SHARD_S
        of_shard |= len(storage.seen) == 1 and now_s - since_s >= _ALONE_S
        if of_shard and shard:
            del storage.shards[shard]
            return "failed"
        limit_s = min(wait_s, REFUSED_S) if refused else wait_s
        return "away" if now_s - storage.since_s >= limit_s else "wait"

    def _is_of_shard(self, place: Place, shard: str, others: Collection[Place]) -> bool:
        of_shard = [one for one in self._faults if one.shard == shard]
        if any(one.place.node != place.node for one in of_shard):
            return True
        return not others and len(of_shard) + 1 >= MAX_DEATHS

    def _forget(self, now_s: float) -> None:
        self._faults = [one for one in self._faults if now_s - one.at_s < _MEMORY_S]

    def _forgive(self, shard: str) -> None:
        """Takes back what a shard was to blame for."""
        self._faults = [one for one in self._faults if one.shard != shard]
        kept = {one.place.node for one in self._faults}
        for place in [one for one in self._aside if one.node not in kept]:
            del self._aside[place]

    def _judge(self, place: Place, error: str, others: Collection[Place]) -> None:
        """Sets a place aside that has failed often enough, where there is another."""
        there = [one.place for one in self._faults if one.place.node == place.node]
        if len(there) < FAULTS_OF_A_PLACE:
            return
        has_other_gpus = place.gpu and any(one.node == place.node for one in others)
        elsewhere = any(one.node != place.node for one in others)
        if has_other_gpus and (len(set(there)) == 1 or not elsewhere):
            if there.count(place) >= FAULTS_OF_A_PLACE:
                self._aside[place] = error
        elif elsewhere:
            self._aside[Place(place.node)] = error
