"""A GPU or node that fails trials keeps one of them, so that the others go on elsewhere.

Tune gives the next trial the slot that is free first: a broken GPU, or a node whose disk is full,
fails each in seconds, and would be given all that wait while the healthy ones are on their first.
What such a place fails is not held against the trial, unless another place fails it too.
"""

import contextlib
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, final

import ray
from torch.distributed import DistError

from raygrad.engine.nodes import Resources
from raygrad.engine.relay import Board
from raygrad.engine.score.blame import FAULTS_OF_A_PLACE, Place
from raygrad.engine.score.faults import fault_of, told
from raygrad.errors import IncompleteError, ResourceError

MOST_AT_ONE = 5
"""So often a trial that one place alone has failed is tried again, were it to be given no other."""
_LOOK_S, _ASK_S = 2.0, 2.0
_FREE_S = 15.0
"""A trial that is let go takes so long to be at work elsewhere, or back, before the next one is."""
_IDLE_S = 30.0
"""None is at work where none is for so long: between two trials of a slot none is for a moment."""


class PlaceError(IncompleteError):
    """A trial failed by what another GPU or node need not meet.

    Args:
        text: The line for the user, which names the place.
        place: Where.
        is_final: Whether every other attempt there would meet it.
    """

    def __init__(self, text: str, place: Place, is_final: bool) -> None:
        super().__init__(text, place, is_final)
        self.place, self.is_final = place, is_final

    def __str__(self) -> str:
        return str(self.args[0])


def place_here() -> Place:
    """Returns where this process stands."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return Place(context.get_node_id(), gpus[0] if gpus else "")


@contextlib.contextmanager
def of_this_place() -> Iterator[None]:
    """Names the place in errors that are of it.

    Raises:
        PlaceError: The work met an error of the GPU, or of the memory or disk of the node.
    """
    try:
        yield
    except Exception as error:
        # That other ranks are gone is said by the device's library too.
        if isinstance(error, DistError) or fault_of(error, is_built=True) != "device":
            raise
        place = place_here()
        gpu = f" GPU {place.gpu}" if place.gpu else ""
        where = f"{platform.node()}{gpu} (node {place.node[:12]})"
        said = f"{where}: {told(error).splitlines()[0]}"
        raise PlaceError(said, place, isinstance(error, ResourceError)) from error


class PlaceBoard(Board):
    """Counts what places fail, and knows the trials that keep theirs; an actor of the driver.

    Args:
        has_others: Whether there is another place at all.
    """

    def __init__(self, has_others: bool) -> None:
        super().__init__()
        self._has_others = has_others
        self._faults: Counter[Place] = Counter()
        self._keeping: dict[str, Place] = {}

    def begin(self, trial: str) -> None:
        """Notes that a trial begins: it keeps nothing any more."""
        self._keeping.pop(trial, None)

    def works(self, place: Place) -> None:
        """Notes that a trial has finished at a place."""
        self._faults.pop(place, None)

    def fault(self, trial: str, place: Place) -> bool:
        """Notes that a place failed a trial; returns whether it is to keep the place."""
        self._faults[place] += 1
        keeps = self._has_others and self._faults[place] >= FAULTS_OF_A_PLACE
        if keeps:
            self._keeping[trial] = place
        return keeps

    def keeping(self) -> list[str]:
        """Returns the trials that keep a place."""
        return list(self._keeping)

    def keeps(self, trial: str) -> bool:
        """Tells whether a trial is to keep its place still."""
        return trial in self._keeping

    def let_go(self, trials: list[str]) -> None:
        """Lets trials fail, and be tried again."""
        for trial in trials:
            self._keeping.pop(trial, None)


@contextlib.contextmanager
def kept_from_others(board: Any, trial: str, name: str) -> Iterator[None]:
    """Has a trial whose place fails keep it from those that wait, before its error goes on.

    Args:
        board: The driver's `PlaceBoard`.
        trial: The trial's id.
        name: Its name for people.

    Raises:
        PlaceError: The place has failed it, and is let go.
    """
    board.begin.remote(trial)
    try:
        yield
    except PlaceError as fault:
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(board.fault.remote(trial, fault.place)):
                board.say.remote(f"{name} keeps a place that fails from the others: {fault}")
                while ray.get(board.keeps.remote(trial)):
                    time.sleep(_ASK_S)
        raise
    board.works.remote(place_here())


def has_others(nodes: list[Resources], each: Mapping[str, float]) -> bool:
    """Tells whether there is more than one place: nodes, or GPUs of one.

    Args:
        nodes: Those that hold a worker of a trial.
        each: What a worker takes.
    """
    gpus = sum(node.get("GPU", 0.0) for node in nodes) if each.get("GPU") else 0.0
    return len(nodes) > 1 or gpus > 1


@final
class Places:
    """What the driver decides of trials that places have failed.

    Args:
        board: The sweep's `PlaceBoard`.
        count: How many trials run at a time.
        has_others: As of `PlaceBoard`.
    """

    def __init__(self, board: Any, count: int, has_others: bool) -> None:
        self._board, self._count, self._has_others = board, count, has_others
        self._failed_at: defaultdict[str, list[Place]] = defaultdict(list)
        self._next_s = 0.0
        self._at_work_s = time.monotonic()

    def goes_on(self, trial: str, fault: PlaceError) -> bool | None:
        """Tells whether a trial is tried again; None where it is as any failure of its own."""
        failed_at = self._failed_at[trial]
        failed_at.append(fault.place)
        if not self._has_others or len(set(failed_at)) > 1:
            return False if fault.is_final else None
        return len(failed_at) <= MOST_AT_ONE

    def look(self, running: set[str], num_waiting: int) -> None:
        """Lets a trial that keeps a place go, where no other trial would be given the place.

        That is where all have begun and there is room elsewhere; or all of them where none is at
        work, as then it is not the places that fail.

        Args:
            running: The ids of trials that run, or keep a place.
            num_waiting: How many have not begun.
        """
        now_s = time.monotonic()
        if not self._failed_at or now_s < self._next_s:
            return
        self._next_s = now_s + _LOOK_S
        with contextlib.suppress(ray.exceptions.RayError):
            keeping = [one for one in ray.get(self._board.keeping.remote()) if one in running]
            if len(keeping) < len(running):
                self._at_work_s = now_s
            if not keeping:
                return
            if not num_waiting and len(running) < self._count:
                keeping = keeping[:1]
            elif now_s - self._at_work_s < _IDLE_S:
                return
            self._board.let_go.remote(keeping)
            self._next_s = now_s + _FREE_S
