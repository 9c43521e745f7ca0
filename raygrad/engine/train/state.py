"""The saved state of a training under way, in a file of our own beside Ray Train's.

Ray's own reports wait for its controller, about 2 s each, and the last one before a worker dies
can be lost; a file that is replaced whole costs what writing it costs, and does not depend on how
many workers there were.
"""

import time
from typing import Any

from raygrad.storage import files
from raygrad.training import ranks
from raygrad.training.checkpoints import from_bytes, to_bytes
from raygrad.training.loop import TrainingLoop

# Ranks agree on saving every so many steps of an epoch, as asking costs a message to each.
STEPS_BETWEEN_LOOKS = 20
# Saving takes at most about this share of the time, however large the network.
MOST_SHARE = 0.05


class StateFile:
    """Saves a training's state every few seconds, and gives it back.

    Args:
        url: The file.
        interval_s: Least seconds between two saves; 0 saves after every epoch and every look.
    """

    def __init__(self, url: str, interval_s: float = 0.0) -> None:
        self._url, self._interval_s = url, interval_s
        self._last_s, self._cost_s = time.monotonic(), 0.0

    def read(self) -> dict[str, Any] | None:
        """Returns the saved state, None where there is none."""
        return from_bytes(files.read_bytes(self._url)) if files.exists(self._url) else None

    def remove(self) -> None:
        """Removes the file, if it is there."""
        if files.exists(self._url):
            filesystem, path = files.filesystem(self._url)
            filesystem.delete_file(path)

    def save_if_due(self, loop: TrainingLoop) -> None:
        """Saves if it is time; called on every rank, which all follow the first one."""
        if not loop.between_epochs and loop.outcome.step % STEPS_BETWEEN_LOOKS:
            return
        wait_s = self._interval_s and max(self._interval_s, self._cost_s / MOST_SHARE)
        start_s = time.monotonic()
        if not ranks.agreed(start_s - self._last_s >= wait_s):
            return
        state = loop.state_dict()
        if ranks.rank() == 0:
            files.write_bytes(self._url, to_bytes(state))
        self._last_s = time.monotonic()
        self._cost_s = self._last_s - start_s
