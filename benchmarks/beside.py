"""Timing of ways that have processes beside this one, which rest while another way is timed."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


class Timed:
    """One way, whose processes stand still while another is timed; counts the CPU time of all.

    Args:
        run: Goes through an epoch.
        pids: Processes beside this one; by default those that the first call starts.
    """

    def __init__(self, run: Callable[[], None], pids: Iterable[int] = ()) -> None:
        self._run, self._pids = run, list(pids)
        self.cpu_s: list[tuple[float, float]] = []
        """Of each call: this process's, and that of those beside it."""

    def __call__(self) -> None:
        """Goes through an epoch."""
        self.go_on()
        before = {child.pid for child in multiprocessing.active_children()}
        here_s, beside_s = time.process_time(), sum(map(_cpu_s, self._pids))
        self._run()
        now = {child.pid for child in multiprocessing.active_children()}
        self._pids += [pid for pid in now - before if pid is not None]
        self.cpu_s.append((time.process_time() - here_s, sum(map(_cpu_s, self._pids)) - beside_s))
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets the processes go on."""
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)


def _cpu_s(pid: int) -> float:
    """Returns the CPU seconds of a process, of all its threads (Linux)."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
