"""Progress of long stages as log lines, at most one every few seconds."""

import logging
import time
from dataclasses import dataclass

from raygrad import stopping

log = logging.getLogger("raygrad")


@dataclass(frozen=True)
class ProgressState:
    """How far a stage is; a log record's `progress`, from which a terminal draws a bar."""

    stage: str
    """Its name."""
    done: int
    """Units done."""
    total: int
    """Units there are."""
    note: str
    """Rate, remaining time and what else is to be told."""


class Progress:
    """Counts what is done and logs count, rate and remaining time.

    The line serves a log file and a cluster job's log; its record carries the state as
    `progress`, which a terminal draws as a bar instead.

    Args:
        stage: The stage's name, which every line begins with.
        total: How many units there are; 0 is complete at once.
        unit: What is counted, in the plural.
        interval_s: Least seconds between two lines.
        work: What all units take together, in any measure, where one takes far more than
            another; the remaining time goes by it instead of by their number.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        unit: str,
        interval_s: float = 2.0,
        work: float | None = None,
    ) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._interval_s = interval_s
        self._work = total if work is None else work
        self._by_count = work is None
        self._done, self._worked = 0, 0.0
        self._start_s = self._last_s = time.monotonic()

    def add(self, count: int, note: str = "", work: float = 0.0) -> None:
        """Adds `count` units that are done, and their work; logs a line if it is time for one.

        A count of 0, or less where what was done is lost, tells the note alone.

        Raises:
            KeyboardInterrupt: The command was asked to stop, and a library lost what said so.
        """
        stopping.go_on()
        self._done += count
        self._worked += count if self._by_count else work
        if count <= 0 < self._total:
            if note:
                log.info("%s: %s", self._stage, note)
            return
        now_s = time.monotonic()
        if self._done < self._total and now_s - self._last_s < self._interval_s:
            return
        self._last_s = now_s
        elapsed_s = max(now_s - self._start_s, 1e-9)
        rate = self._done / elapsed_s
        left = self._work - self._worked
        left_s = left / self._worked * elapsed_s if self._worked else float("inf")
        end = f"{left_s:.0f} s left" if self._done < self._total else f"done in {elapsed_s:.1f} s"
        said = f"{rate:.3g} {self._unit}/s, {end}{f', {note}' if note else ''}"
        log.info(
            "%s: %d of %d %s, %s",
            self._stage,
            self._done,
            self._total,
            self._unit,
            said,
            extra={"progress": ProgressState(self._stage, self._done, self._total, said)},
        )
