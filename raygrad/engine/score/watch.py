"""What the driver looks at while actors score, and tells: progress, trouble, and a standstill."""

import time
from typing import Any, final

import ray

from raygrad.engine.score.board import BoardState
from raygrad.engine.score.task import ScoreTask
from raygrad.engine.score.trouble import TroubleTelling
from raygrad.engine.waiting import Need, Waiting
from raygrad.progress import Progress

_LOOK_S = 0.25
"""Seconds between two looks at the board."""
_NOTE_S = 5.0
"""Actors and retries alone, with no example done, are told this often at most."""
_STALLED = 1.5
"""Actors that tell of no progress for this many times `shard_timeout_s` are lost."""
_STARTS_S = 60.0
"""An actor that has room may take so long to start, on a machine that has much to do."""


@final
class Watch:
    """Looks at the board now and then: not at each of very many shards.

    Args:
        board: The job's board.
        task: What is scored.
        need: What an actor needs.
        wait_s: How long room for an actor is waited for while none works.
        num_examples: How many are to be scored.
    """

    def __init__(
        self, board: Any, task: ScoreTask, need: Need, wait_s: float, num_examples: int
    ) -> None:
        self.trouble = TroubleTelling("score")
        self.most_actors = 0
        self._board, self._timeout_s = board, task.shard_timeout_s
        self._progress, self._told = Progress("score", num_examples, "images"), _LastNote()
        self._waiting, self._shown = Waiting("score", need, wait_s), 0
        self._looked_s = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it has not been looked at for a while."""
        return time.monotonic() - self._looked_s >= _LOOK_S

    def look(self, retries: int, rejects: int, settled: int) -> BoardState:
        """Looks at the board, tells what is new, and ends the job where nothing moves.

        Args:
            retries: Tries of shards that failed, which the board does not count.
            rejects: Examples that could not be used so far.
            settled: Examples of shards that are done with, of which a board that was started again
                knows nothing.
        """
        state: BoardState = ray.get(self._board.read.remote())
        self._looked_s = time.monotonic()
        self.most_actors = max(self.most_actors, state.most_actors)
        self.trouble.tell(state)
        note = _note(state, retries, rejects)
        done = max(state.done, settled)
        if done != self._shown or self._told.differs(note):
            self._progress.add(done - self._shown, note)
        self._shown = done
        _check_moving(state, self._timeout_s, self._waiting)
        return state


class _LastNote:
    """Keeps what was told while no example was done, so that it is told once, and not too often."""

    def __init__(self) -> None:
        self._text, self._told_s = "", 0.0

    def differs(self, note: str) -> bool:
        """Tells whether a note is to be told: another one than the last, `_NOTE_S` after it."""
        now_s = time.monotonic()
        if note == self._text or now_s - self._told_s < _NOTE_S:
            return False
        self._text, self._told_s = note, now_s
        return True


def _note(state: BoardState, failed: int, rejects: int) -> str:
    """Returns who works, and what went wrong where something did."""
    retries = failed + state.retries
    parts = [_counted(state.actors, "actor")] if state.actors else ["actors start"]
    parts += [_counted(retries, "retry", "retries")] if retries else []
    parts += [_counted(rejects, "reject")] if rejects else []
    return ", ".join(parts)


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _check_moving(state: BoardState, shard_timeout_s: float, waiting: Waiting) -> None:
    """Says that nothing works, and ends the job where nothing has for too long.

    Actors that hold a shard end themselves after their own time; until then they may be at work.
    """
    quiet_s = _STARTS_S if state.actors == 0 else _STALLED * shard_timeout_s
    if state.idle_s > quiet_s:
        waiting.still(state.idle_s)
    else:
        waiting.over()
