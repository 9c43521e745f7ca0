"""Where an actor takes what went wrong: it tells the board, and does what the board decides."""

import os
import threading
import time
from typing import Any

import ray

from raygrad.engine.score.blame import Place
from raygrad.engine.score.faults import fault_of, told
from raygrad.engine.score.task import ShardStatus
from raygrad.errors import StorageRefusedError

_HOLD_S = 0.5
"""An actor whose place is set aside asks so often whether it may work again."""
_PAUSE_S, _MAX_PAUSE_S = 1.0, 10.0
"""Storage that withholds something is asked again after the first, at last after the second."""


class FaultDesk:
    """Judges errors with the board; one an actor, for all its threads.

    Args:
        board: The driver's board.
        actor_id: The actor.
        place: Where it stands.
    """

    def __init__(self, board: Any, actor_id: str, place: Place) -> None:
        self._board, self._id, self._place = board, actor_id, place
        self._lock = threading.Lock()
        self._is_spoilt = False

    def wait_while_aside(self) -> None:
        """Returns once the actor's place is not set aside, perhaps never.

        An actor that waits so while it is built is given no shard, and keeps others from its place.
        """
        while self._standing() != "work":
            time.sleep(_HOLD_S)

    def end_if_spoilt(self) -> None:
        """Ends the process where its device has failed: it begins no further shard."""
        if self._is_spoilt:
            self._leave()

    def may_work(self) -> bool:
        """Tells whether an actor whose place was set aside may work again, or gives its shard back.

        While others are at work the shard is held: given back at once, the next would come at
        once, until all of them were here.
        """
        while (standing := self._standing()) == "hold":
            time.sleep(_HOLD_S)
        return standing == "work"

    def judged(self, error: Exception, shard: str, *, is_built: bool) -> ShardStatus | None:
        """Returns what becomes of a shard after an error, None where it is to be tried again here.

        Where the place is to blame it does not return: the process ends, and Ray starts another.

        Args:
            error: What ended the building of the networks, or the scoring.
            shard: The shard.
            is_built: Whether the networks were built.
        """
        fault, refused = fault_of(error, is_built=is_built), _is_refusal(error)
        # One broken device fails all threads: the first to tell it ends them all.
        with self._lock:
            if self._is_spoilt:
                self._leave()
            verdict = ray.get(
                self._board.fault.remote(
                    fault, self._id, self._place, shard if is_built else "", told(error), refused
                )
            )
            if verdict == "elsewhere":
                self._leave()
            # What a device once failed in fails in all that this process does later.
            self._is_spoilt |= fault == "device"
        return None if verdict == "wait" else ShardStatus(shard, verdict, error=told(error))

    def _standing(self) -> str:
        return ray.get(self._board.standing.remote(self._id, self._place))

    def _leave(self) -> None:
        """Ends this process; what it had under way is begun again, and is not to blame."""
        ray.get(self._board.leave.remote(self._id))
        os._exit(1)


def pauses() -> Any:
    """Yields the seconds to wait between tries."""
    pause_s = _PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error.__cause__ or error, StorageRefusedError)
