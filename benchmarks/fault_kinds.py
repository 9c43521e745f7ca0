"""The faults of a schedule: drawn from a seed, and done to a run that is under way."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

ENDED = {"kill_driver": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
"""Faults that end the command, after which it is started again."""
STORAGE = {
    "s3_down": "down",
    "s3_slow": "slow",
    "s3_403": "refuse",
    "s3_skew": "skew",
    "s3_503": "busy",
    "s3_cut": "cut",
}
"""Faults of storage, and what the proxy does."""
WORKERS = ("kill_worker", "kill_workers", "stop_worker", "stop_workers")
KINDS = {
    "score": (*ENDED, *STORAGE, *WORKERS, "two_drivers", "broken_device"),
    "train": (*ENDED, *WORKERS),
    "sweep": (*ENDED, *WORKERS),
    "study": (*ENDED, *WORKERS),
}
"""What is done to each stage."""
NODES = {"kill_node": signal.SIGKILL, "stop_node": signal.SIGSTOP}
"""Faults of the node that a command starts for itself; one that is stopped comes back."""
MORE = {
    "score": tuple(NODES),
    "train": (*NODES, "full_disk"),
    "sweep": (*NODES, "full_disk"),
    "study": (*NODES, "full_disk"),
}
"""What `--more` draws as well: apart, so that the schedules of a seed stay what they were."""
CLOCK = "clock_off"
"""The clock of the node's workers is far off. `--clock` draws one in each schedule: apart too."""
OFF_S = 7200.0
"""By how much, ahead or behind; S3 refuses what is signed a quarter of an hour off."""
MAX_FAULTS = 4
LONGEST_S = 12.0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    """One of `KINDS`."""
    after: float
    """When: at this share of the undisturbed run's progress, in [0, 1)."""
    for_s: float
    """For how long, where it lasts."""


class Run(Protocol):
    """What faults are done to."""

    broken: Path
    """The folder that `fault_networks` looks into."""

    def nodes(self) -> list[int]:
        """Returns the processes that are nodes."""

    def fill_disk(self) -> None:
        """Leaves no room where the run writes."""

    def empty_disk(self) -> None:
        """Gives the room back."""

    @property
    def driver(self) -> int:
        """The process of the command."""

    def workers(self) -> list[int]:
        """Returns the processes that score or train."""

    def start_second(self) -> None:
        """Starts the same command beside the first."""

    def set_storage(self, mode: str) -> None:
        """Makes storage behave in a way of the proxy's modes."""

    def set_clock(self, off_s: float) -> None:
        """Sets the clock of the workers off by so much."""


def draw(
    stage: str, seed: int, number: int, *, more: bool = False, clock: bool = False
) -> list[Fault]:
    """Returns the faults of one schedule, in the order of their moments.

    Args:
        stage: What they are done to.
        seed: The seed of all schedules.
        number: Which of them.
        more: Draw of `MORE` too.
        clock: One of them is `CLOCK`.
    """
    rng = random.Random(f"{stage}/{seed}/{number}" + "/more" * more + "/clock" * clock)
    kinds = KINDS[stage] + MORE[stage] * more
    faults = [
        Fault(
            rng.choice(kinds),
            rng.randrange(1000) / 1000,
            round(rng.uniform(1, LONGEST_S), 1),
        )
        for _ in range(rng.randint(1, MAX_FAULTS))
    ]
    if clock:
        faults[0] = replace(faults[0], kind=CLOCK)
    return sorted(faults, key=lambda fault: fault.after)


def do(fault: Fault, run: Run, later: Callable[[float, Callable[[], None]], None]) -> str | None:
    """Does a fault to a run; returns the signal's name where it ends the command.

    Args:
        fault: What is done.
        run: The run.
        later: Takes what is to be done after so many seconds, to end a fault that lasts.
    """
    if fault.kind in ENDED:
        os.kill(run.driver, ENDED[fault.kind])
        return ENDED[fault.kind].name
    if fault.kind in STORAGE:
        run.set_storage(STORAGE[fault.kind])
        later(fault.for_s, lambda: run.set_storage("up"))
    elif fault.kind == "two_drivers":
        run.start_second()
    elif fault.kind == "broken_device":
        run.broken.mkdir(exist_ok=True)
        (run.broken / "on").write_text(str(1 + int(fault.for_s) % 3))
    elif fault.kind == CLOCK:
        run.set_clock(OFF_S if int(10 * fault.for_s) % 2 else -OFF_S)
        later(fault.for_s, lambda: run.set_clock(0.0))
    elif fault.kind == "full_disk":
        run.fill_disk()
        later(fault.for_s, run.empty_disk)
    elif fault.kind in NODES:
        for pid in run.nodes():
            _send(pid, NODES[fault.kind])
            later(fault.for_s, lambda pid=pid: _send(pid, signal.SIGCONT))
    else:
        pids = run.workers()
        for pid in pids if fault.kind.endswith("s") else pids[:1]:
            if fault.kind.startswith("kill"):
                _send(pid, signal.SIGKILL)
            else:
                _send(pid, signal.SIGSTOP)
                later(fault.for_s, lambda pid=pid: _send(pid, signal.SIGCONT))
    return None


def shrunk(faults: list[Fault], fails: Callable[[list[Fault]], bool]) -> list[Fault]:
    """Returns as few of the faults as still fail, leaving out one after the other."""
    kept = list(faults)
    for fault in faults:
        fewer = [one for one in kept if one is not fault]
        if fewer and fails(fewer):
            kept = fewer
    return kept


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        time.sleep(0)  # it has just ended
