"""The runs that faults are done to: a study of the digits on this disk, or one stage of it."""

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.fault_checks import Outcome
from benchmarks.fault_processes import SmallDisk, living
from benchmarks.fault_runs import LEFT, Run
from benchmarks.interruptions import STUDY, tables

_OF_STAGE = {
    "prepare": "--shard-bytes 400000",
    "train": "--network linear --epochs 3 --lr-decay-epochs 2 --batch-size 32 --dynamics",
    "score": "",
    "select": "--methods random gradient_cdf --keep-fractions 0.1 --seeds 0",
    "sweep": "",
    "run": STUDY,
}
"""What each command of a study is told; the run folder keeps it for those after it."""
_DISK_BYTES = 256 * 2**20


class LocalRuns:
    """Runs of a study of the digits on this disk, or of one of its stages.

    Args:
        stage: ``train``, ``sweep`` or ``study``.
        folder: Where the runs are.
        on_small_disk: They are on one that can be filled.
    """

    def __init__(self, stage: str, folder: Path, *, on_small_disk: bool = False) -> None:
        self.own: set[int] = set()
        self._disk = SmallDisk(folder / "disk", _DISK_BYTES) if on_small_disk else None
        self._logs, folder = folder, folder / "disk" if on_small_disk else folder
        self._stage, self._folder, self._number = stage, folder, 0
        self._took_s = 0.0
        before = {"train": ("prepare",), "sweep": ("prepare", "train", "score", "select")}
        for name in before.get(stage, ()):
            run = _LocalRun(name, folder / "base", self._logs / "base.log", Outcome(), 0.0)
            run.start()
            assert run.wait() == 0, run.said()

    def new(self, outcome: Outcome) -> Run:
        """Returns a run in a copy of what the stages before have left."""
        self._number += 1
        path = self._folder / f"run-{self._number}"
        if (self._folder / "base").exists():
            shutil.copytree(self._folder / "base", path)
        begun_s, took_s = time.monotonic(), self._took_s
        name = "run" if self._stage == "study" else self._stage
        log = self._logs / f"{path.name}.log"
        run = _LocalRun(name, path, log, outcome, took_s, self._disk)
        if not self._took_s:
            run.when_collected = lambda: setattr(self, "_took_s", time.monotonic() - begun_s)
        return run

    def close(self) -> None:
        """Leaves nothing."""
        if self._disk is not None:
            self._disk.unmount()


class _LocalRun(Run):
    when_collected: Any = staticmethod(lambda: None)

    def __init__(
        self,
        name: str,
        folder: Path,
        log: Path,
        outcome: Outcome,
        took_s: float,
        disk: SmallDisk | None = None,
    ) -> None:
        super().__init__([name, "--run", str(folder), *_OF_STAGE[name].split()], {}, log, outcome)
        self._folder, self._took_s, self._begun_s = folder, took_s, time.monotonic()
        self._disk = disk

    def workers(self) -> list[int]:
        """Returns the processes of tasks and actors, without the node's own: it ends with those."""
        found = living(()).items()
        return sorted(
            pid for pid, name in found if name.startswith("ray::") and not name.endswith("Agent")
        )

    def fill_disk(self) -> None:
        """Leaves no room where the run writes."""
        assert self._disk is not None
        self._disk.fill()
        self.is_full = True

    def empty_disk(self) -> None:
        """Gives the room back."""
        assert self._disk is not None
        self._disk.empty()
        self.is_full = False

    def __exit__(self, *of: object) -> None:
        super().__exit__(*of)
        if self._disk is not None:
            self._disk.empty()
        shutil.rmtree(self._folder, ignore_errors=True)

    def progress(self) -> float:
        """Returns the share of the undisturbed run's time that has gone by."""
        return min((time.monotonic() - self._begun_s) / max(self._took_s, 1.0), 0.99)

    def collect(self) -> None:
        """Takes all tables that no clock decides."""
        self.when_collected()
        found = tables(self._folder)
        self.outcome.tables = {name: [(repr(value),)] for name, value in found.items()}
        self.outcome.leftovers = [
            str(path.relative_to(self._folder))
            for path in self._folder.rglob("*")
            if path.name.endswith(LEFT)
        ]
