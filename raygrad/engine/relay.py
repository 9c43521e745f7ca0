"""What remote workers tell, shown by the driver: workers post, a thread of the driver reads."""

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrad.progress import Progress

log = logging.getLogger("raygrad")

POLL_INTERVAL_S = 0.5
_TIMES = 3
"""A process tells of the same so often: what comes with every epoch is known by then."""

_told: Counter[tuple[str, int]] = Counter()
"""How often this process was asked to tell of something, by the line of code that says it."""


class Board:
    """Holds what workers have posted until the driver reads it."""

    def __init__(self) -> None:
        self._posts: list[tuple[int, str]] = []
        self._said: dict[str, None] = {}
        self._reached = 0

    def reach(self, done: int, note: str) -> None:
        """Says that `done` units are done in all, fewer than before after a restart."""
        self._posts.append((done - self._reached, note))
        self._reached = done

    def say(self, warning: str) -> None:
        """Says what the user should know; once where several ranks say the same."""
        self._said[warning] = None

    def drain(self) -> list[tuple[int, str]]:
        """Returns what was posted since the last call."""
        posts, self._posts = self._posts, []
        return posts

    def drain_said(self) -> list[str]:
        """Returns the warnings that were said since the last call."""
        said, self._said = list(self._said), {}
        return said


@contextlib.contextmanager
def relayed(
    stage: str, progress: Progress | None = None, kind: type[Board] = Board, *given: Any
) -> Iterator["ray.actor.ActorHandle"]:
    """Gives a board whose posts are told by this process while the context lasts.

    It stands on the driver's node, and is lost with it alone.

    Args:
        stage: Its name, which every warning begins with.
        progress: What is reached is added to it.
        kind: The class of the board.
        *given: What it is made of.
    """
    board = _start_board(kind, *given)
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(POLL_INTERVAL_S):
            _read_once(board, stage, progress)

    reader = threading.Thread(target=read, daemon=True, name="raygrad-progress")
    reader.start()
    try:
        yield board
        _read_once(board, stage, progress)
    finally:
        ended.set()
        reader.join()
        ray.kill(board)


def _start_board(kind: type[Board], *given: Any) -> "ray.actor.ActorHandle":
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
    return ray.remote(**options)(kind).remote(*given)


def _read_once(board: "ray.actor.ActorHandle", stage: str, progress: Progress | None) -> None:
    # A lost board costs progress lines, never the work that they tell of.
    with contextlib.suppress(ray.exceptions.RayError):
        posts, said = ray.get([board.drain.remote(), board.drain_said.remote()])
        for warning in said:
            log.warning("%s: %s", stage, warning)
        for count, note in posts:
            if progress is not None:
                progress.add(count, note)


@contextlib.contextmanager
def told_to(board: Any, who: str = "") -> Iterator[None]:
    """Has what this process warns of told by the driver too, while the context lasts.

    Its own lines stay in Ray's files, on its node.

    Args:
        board: The driver's, which has `say`.
        who: Whom a warning is of, where there are several.
    """
    handler, logger = _ToBoard(board, who), logging.getLogger("raygrad")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def tell_to(board: Any) -> None:
    """Does the same from now on: for a process that does one stage's work until it ends."""
    logger = logging.getLogger("raygrad")
    for handler in [one for one in logger.handlers if isinstance(one, _ToBoard)]:
        logger.removeHandler(handler)
    logger.addHandler(_ToBoard(board, ""))


class _ToBoard(logging.Handler):
    def __init__(self, board: Any, who: str) -> None:
        super().__init__(logging.WARNING)
        self._board, self._who = board, f"{who}: " if who else ""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`, on any thread."""
        site = record.pathname, record.lineno
        _told[site] += 1
        if _told[site] > _TIMES:
            return
        more = " (further ones of this process are not told)" if _told[site] == _TIMES else ""
        text = record.getMessage().removeprefix("train: ").removeprefix("score: ")
        # A board that is lost costs what is told, never the work.
        with contextlib.suppress(ray.exceptions.RayError):
            self._board.say.remote(f"{self._who}{text}{more}")
