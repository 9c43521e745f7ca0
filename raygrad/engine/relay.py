"""Progress of remote workers, shown by the driver: workers post, a thread of the driver reads."""

import contextlib
import threading
from collections.abc import Iterator

import ray

from raygrad.progress import Progress

POLL_INTERVAL_S = 0.5


class Board:
    """Holds what workers have posted until the driver reads it."""

    def __init__(self) -> None:
        self._posts: list[tuple[int, str]] = []
        self._reached = 0

    def reach(self, done: int, note: str) -> None:
        """Says that `done` units are done in all, fewer than before after a restart."""
        self._posts.append((done - self._reached, note))
        self._reached = done

    def drain(self) -> list[tuple[int, str]]:
        """Returns what was posted since the last call."""
        posts, self._posts = self._posts, []
        return posts


@contextlib.contextmanager
def relayed(progress: Progress) -> Iterator["ray.actor.ActorHandle"]:
    """Gives a board whose posts are added to `progress` while the context lasts."""
    board = ray.remote(num_cpus=0)(Board).remote()
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(POLL_INTERVAL_S):
            _read_once(board, progress)

    reader = threading.Thread(target=read, daemon=True, name="raygrad-progress")
    reader.start()
    try:
        yield board
        _read_once(board, progress)
    finally:
        ended.set()
        reader.join()
        ray.kill(board)


def _read_once(board: "ray.actor.ActorHandle", progress: Progress) -> None:
    # A lost board costs progress lines, never the work that they tell of.
    with contextlib.suppress(ray.exceptions.RayError):
        for count, note in ray.get(board.drain.remote()):
            progress.add(count, note)
