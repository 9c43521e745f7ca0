"""Ray's notice that a node will be taken away, as a training's processes hear of it.

A node that drains (a spot node that is told two minutes before, a pod that is deleted, a node that
gets SIGTERM under `ray start --block`) goes on until its deadline. Ray Train tells its own workers,
by a call that every rank has to make; the processes of a sweep's trials are told by nobody. Both
ask Ray itself here, a process for its own node.
"""

import contextlib
import threading
from types import TracebackType
from typing import Self

import ray

from raygrad.engine import ray_private

POLL_S = 2.0
"""Seconds from one question to the next."""


class Notice:
    """Tells once of each deadline that this process's node is given; asks while it is a context."""

    def __init__(self) -> None:
        is_in_ray = ray.is_initialized()
        self._node = ray.get_runtime_context().get_node_id() if is_in_ray else None
        self._heard: int | None = None
        self._told: int | None = None
        self._ended = threading.Event()
        self._asking = threading.Thread(target=self._ask, daemon=True, name="raygrad-notice")

    def __call__(self) -> bool:
        """Tells whether there is a deadline that was not told yet."""
        heard = self._heard
        is_new = heard is not None and heard != self._told
        self._told = heard
        return is_new

    def _ask(self) -> None:
        assert self._node is not None
        while not self._ended.wait(POLL_S):
            # Without an answer there is no notice; where Ray is lost, the work notices by itself.
            with contextlib.suppress(ray.exceptions.RayError, ConnectionError, RuntimeError):
                self._heard = ray_private.drain_deadline_ms(self._node)

    def __enter__(self) -> Self:
        """Begins to ask, where there is a Ray to be asked."""
        if self._node is not None:
            self._asking.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Asks no more; the thread, which may wait for an answer, ends by itself."""
        self._ended.set()
