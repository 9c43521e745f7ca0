"""What an own Ray's node runs in place of its dashboard's agent, which nobody asks anything.

Ray's agent, where the packages of a dashboard are not installed, says in files that it serves at
no port, and ends with its node. To do so it imports Ray and samples the node for metrics: two CPU
seconds at every start, and some per cent of a core from then on. Run as a file, with the files'
paths: this one imports nothing of Ray's, and does the same.
"""

import os
import sys
import time
from collections.abc import Iterable

NO_PORT = "-1"
"""What Ray reads as a service that is not in use."""
_LOOK_S = 0.5


def say_no_port(paths: Iterable[str]) -> None:
    """Writes the files that a node waits for; each is whole as soon as it is there."""
    for path in paths:
        beside = f"{path}.tmp"
        with open(beside, "w") as out:
            out.write(NO_PORT)
        os.replace(beside, path)


def last_as_long_as(node: int) -> None:
    """Returns once the process that started this one, the node's, has gone."""
    while os.getppid() == node:
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    # A node that has gone already is no longer the parent: Ray tells its id.
    started_by = int(os.environ.get("RAY_RAYLET_PID", os.getppid()))
    say_no_port(sys.argv[1:])
    last_as_long_as(started_by)
