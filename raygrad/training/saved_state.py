"""The saved state of a training or retraining under way, in a file of its own.

Ray's own reports wait for its controller, about 2 s each, and the last one before a worker dies
can be lost; a file that is replaced whole costs what writing it costs, and does not depend on how
many workers there were. It is written beside the loop, which waits for a copy in memory alone.
"""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch

from raygrad.errors import IncompleteError, RaygradError
from raygrad.storage import files
from raygrad.training import ranks
from raygrad.training.checkpoints import from_bytes
from raygrad.training.loop import TrainingLoop

log = logging.getLogger("raygrad")

FORMAT = 2
"""What the file holds; one of another format is not gone on from."""
MOST_STEPS = 20
"""Ranks agree on saving every so many steps of an epoch at most, as asking costs a message each."""
LOOK_S = 1.0
"""And about this often where steps are longer, so that a notice is answered in time."""
MOST_SHARE = 0.05
"""Saving takes at most about this share of the time, however large the network."""
MOST_FAILED = 3
"""So many saves in a row that fail mean that storage is away."""
_READS, _BETWEEN_READS_S = 5, 1.0
_LEAVE_S = 5.0
"""How long a training that failed waits for a save that is being written."""


class StateFile:
    """Saves a training's state every few seconds, and gives it back.

    Used as a context around the loop: left, no write of it is under way any more.

    Args:
        url: The file.
        interval_s: A killed training loses at most about this many seconds; 0 saves after every
            epoch and every look.
        is_urgent: Tells whether this process shall end soon, so that the state is saved at once;
            true once for each time that it was told.
        warn: Is told of a save that failed.
    """

    def __init__(
        self,
        url: str,
        interval_s: float = 0.0,
        is_urgent: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self._url, self._interval_s = url, interval_s
        self._is_urgent, self._warn = is_urgent, warn
        self._begun_s = time.monotonic()
        self.earlier_s = 0.0
        """Seconds that earlier processes took to what was read."""
        self._saved_s, self._cost_s = self._begun_s, 0.0
        self._next_look, self._look_step, self._look_s = 0, 0, self._begun_s
        self._writer: threading.Thread | None = None
        self._failed: list[Exception] = []

    def read(self) -> dict[str, Any] | None:
        """Returns the loop's saved state, None where there is none; the same on every rank.

        Raises:
            IncompleteError: Ranks do not find the same state.
        """
        for _ in range(_READS):
            saved = self._read()
            step = -1 if saved is None else saved["loop"]["outcome"]["step"]
            # A process that is thought dead may have replaced the file between two ranks' reads.
            steps = {int(one) for one in ranks.gathered(torch.tensor([step]))}
            if len(steps) == 1:
                if saved is None:
                    return None
                self.earlier_s = saved["spent_s"]
                loop_state: dict[str, Any] = saved["loop"]
                return loop_state
            time.sleep(_BETWEEN_READS_S)
        raise IncompleteError(
            f"every rank must find the same saved state, got steps {sorted(steps)} in {self._url}. "
            "Run again once no other process trains the same."
        )

    def _read(self) -> dict[str, Any] | None:
        if not files.exists(self._url):
            return None
        try:
            saved = from_bytes(files.read_bytes(self._url))
        except ValueError as error:
            why = f"cannot be read ({error})"
        else:
            if isinstance(saved, dict) and saved.get("format") == FORMAT:
                return saved
            why = "is of another raygrad"
        if ranks.rank() == 0:
            self._warn(f"the saved state {self._url} {why}: it begins anew")
        return None

    def remove(self) -> None:
        """Removes the file, if it is there."""
        files.remove(self._url)

    def save_if_due(self, loop: TrainingLoop) -> None:
        """Saves if it is time, or if any rank shall end; called on every rank after a step.

        Raises:
            IncompleteError: Several saves in a row have failed.
        """
        step = loop.outcome.step
        if not loop.between_epochs and step < self._next_look:
            return
        is_first, is_urgent = ranks.rank() == 0, self._is_urgent()
        asked = [is_first and self._is_due(), is_urgent, self._stride(step) if is_first else 0]
        due, urgent, stride = ranks.largest(asked)
        self._next_look = step + stride
        if urgent or due:
            self._save(loop.state_dict())
        if urgent:
            self._finish_writing()
            if is_first:
                self._warn("a node is to be taken away: the state is saved")
        self._raise_if_away()

    def _raise_if_away(self) -> None:
        if len(self._failed) >= MOST_FAILED:
            raise IncompleteError(
                f"the state of a training must be saved now and then, got {len(self._failed)} "
                f"failures in a row, the last: {self._failed[-1]}. What was saved before is kept."
            ) from self._failed[-1]

    def _stride(self, step: int) -> int:
        """Returns after how many steps ranks look again, from what the last ones took."""
        now_s = time.monotonic()
        each_s = (now_s - self._look_s) / max(1, step - self._look_step)
        self._look_step, self._look_s = step, now_s
        return max(1, min(MOST_STEPS, int(LOOK_S / max(each_s, 1e-6))))

    def _is_due(self) -> bool:
        if self._interval_s == 0:
            return True
        is_writing = self._writer is not None and self._writer.is_alive()
        # So early that it is on disk when the interval is over.
        wait_s = max(self._interval_s - self._cost_s - LOOK_S, self._cost_s / MOST_SHARE)
        return not is_writing and time.monotonic() - self._saved_s >= wait_s

    def _save(self, state: dict[str, Any]) -> None:
        if ranks.rank() != 0:
            return
        self._finish_writing()
        self._raise_if_away()
        self._saved_s = time.monotonic()
        spent_s = self.earlier_s + self._saved_s - self._begun_s
        saved = {"format": FORMAT, "loop": state, "spent_s": spent_s}
        self._writer = threading.Thread(target=self._write, args=(saved,), daemon=True)
        self._writer.start()

    def _write(self, saved: dict[str, Any]) -> None:
        """Runs in a thread of its own; what goes wrong is told, and counted."""
        try:
            with files.open_output(self._url) as stream:
                torch.save(saved, stream)
        except (OSError, RuntimeError, RaygradError) as error:  # torch's own are RuntimeErrors
            self._failed.append(error)
            self._warn(f"the state of a training was not saved ({len(self._failed)}): {error}")
            return
        self._failed.clear()
        self._cost_s = time.monotonic() - self._saved_s

    def _finish_writing(self, timeout_s: float | None = None) -> None:
        if self._writer is not None:
            self._writer.join(timeout_s)

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits for the save that is being written; not long for that of a failed training."""
        self._finish_writing(None if kind is None else _LEAVE_S)
