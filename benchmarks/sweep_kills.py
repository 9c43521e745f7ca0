r"""SIGKILL of a trial, of a rank, of the driver and of a node: what a sweep loses, and its results.

A sweep of two retrainings on images that are made, a training step of 0.05 s each, is left alone,
and then runs again and again with one kill each: of the process of a trial, of the last of two
ranks of a trial, of the driver (which is started again), of a node of two (its raylet and all
below it). The moment is a step that a seed draws from all steps of the sweep.

    python benchmarks/sweep_kills.py --moments 3

Every training step is written down with its time. Steps that were done twice are those that the
kill lost: the work lost is the time from the begin of the first of them to the kill, or to the
begin of the last step of a process that outlived its driver or node. The rows of results.parquet,
but for what a clock decides, must be those of the undisturbed sweep, bit for bit. Rows of a record
are kept: the same command goes on where it was.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.logged_network import STEPS  # noqa: E402
from benchmarks.recording import Record  # noqa: E402

KINDS = ("trial", "rank", "driver", "node")
NETWORK = "benchmarks.logged_network:Logged"
BUDGET, EPOCHS, TRIALS = 90, 20, 2
ALONE = {"rank": "rank", "trial": "trial", "driver": "trial", "node": "trial"}
"""Whose undisturbed sweep each is compared with: two ranks sum in another order."""
BOUND_S = 280.0
"""No sweep may take longer."""


@dataclass(frozen=True)
class Step:
    """One line of a log of steps."""

    begun_s: float
    """By a clock that all processes of the machine share."""
    pid: int
    node: str


def read_steps(path: Path) -> list[Step]:
    """Returns the steps of a rank, over all its processes, in their order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Step(float(s), int(pid), node) for s, pid, node in map(str.split, lines)]


def lost(steps: list[Step], needed: int, victim: int, killed_s: float) -> tuple[int, float]:
    """Returns how many steps were done twice, and the seconds of work that were lost with them.

    Args:
        steps: All that were begun, of the first rank.
        needed: As many are done in an undisturbed sweep.
        victim: The process of the first rank that the kill ended, itself or with its group.
        killed_s: When.
    """
    twice = len(steps) - needed
    of_victim = [step.begun_s for step in steps if step.pid == victim]
    assert 0 <= twice <= len(of_victim), f"{twice} steps done twice, {len(of_victim)} by the victim"
    if twice == 0:
        return 0, 0.0
    return twice, max(killed_s, of_victim[-1]) - of_victim[-twice]


def sweep_in(address: str, folder: str, workers: int, interval_s: float) -> None:
    """Runs the sweep as a driver of its own on a cluster that is there."""
    import ray

    from raygrad.config import SweepConfig
    from raygrad.engine.sweep import job
    from raygrad.runs.layout import RunLayout
    from tests.engine.sweep.sweeping import RECIPE, make_data, make_trials

    ray.init(address=address, logging_level=40, log_to_driver=False)
    layout = RunLayout(folder)
    seeds = tuple(range(TRIALS))
    trials = make_trials(layout, make_data(), network=NETWORK, seeds=seeds, budgets=(BUDGET,))
    recipe = dataclasses.replace(RECIPE, epochs=EPOCHS, patience=EPOCHS)
    config = SweepConfig(
        workers_per_trial=workers, save_interval_s=interval_s, max_concurrent=1, max_failures=1
    )
    job.sweep(config, recipe, trials, layout, make_data)


@contextmanager
def cluster_of(kind: str) -> Iterator[Any]:
    """Starts a Ray on this machine: a head alone, or one without a CPU for trials and two nodes."""
    from ray.cluster_utils import Cluster

    from raygrad.engine.ray_private import lean_node

    nodes = (1, 1) if kind == "node" else ()
    with lean_node():
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0 if nodes else 2, "include_dashboard": False},
        )
        for num_cpus in nodes:
            cluster.add_node(num_cpus=num_cpus)
    try:
        yield cluster
    finally:
        cluster.shutdown()


class Sweep:
    """A sweep in a folder of its own, which is watched from outside.

    Args:
        kind: What is killed; `none` for nothing.
        folder: Where run and logs are.
        cluster: The Ray that it runs on.
        interval_s: The save interval.
    """

    def __init__(self, kind: str, folder: Path, cluster: Any, interval_s: float) -> None:
        self._kind, self._cluster, self._run = kind, cluster, folder / "run"
        workers = 2 if kind == "rank" else 1
        self._arguments = (cluster.address, str(self._run), workers, interval_s)
        self._logs = folder / "steps"
        self._logs.mkdir(parents=True)
        self._last_rank = workers - 1

    def steps(self, rank: int = 0) -> list[Step]:
        """Returns what a rank has begun so far."""
        return read_steps(self._logs / f"{rank}.steps")

    def rows(self) -> list[dict[str, Any]]:
        """Returns the table of results without what a clock decides."""
        import pyarrow.parquet as pq

        from raygrad.runs.layout import RunLayout
        from tests.engine.sweep.sweeping import comparable

        return comparable(pq.read_table(RunLayout(str(self._run)).results))

    def run(self, moment: int | None) -> tuple[int, float]:
        """Runs the sweep to its end; kills once, when so many steps were begun, unless None.

        Returns:
            The process of the first rank that was hit, and when.
        """
        victim, killed_s = 0, 0.0
        driver = self._start()
        if moment is not None:
            self._wait(lambda: len(self.steps()) >= moment, driver)
            at = self.steps()[-1]
            victim, killed_s = at.pid, time.monotonic()
            self._kill(at, driver)
            if self._kind == "driver":
                driver.join()
                driver = self._start()
        driver.join(BOUND_S)
        if driver.is_alive():
            driver.kill()
        assert driver.exitcode == 0, f"the sweep ended with {driver.exitcode}"
        return victim, killed_s

    def _kill(self, at: Step, driver: Any) -> None:
        if self._kind == "node":
            (node,) = (n for n in self._cluster.worker_nodes if n.node_id == at.node)
            self._cluster.remove_node(node, allow_graceful=False)
            return
        pid = {"trial": at.pid, "rank": self._pid_of_last_rank(), "driver": driver.pid}
        os.kill(pid[self._kind], signal.SIGKILL)

    def _pid_of_last_rank(self) -> int:
        return self.steps(self._last_rank)[-1].pid

    def _start(self) -> Any:
        os.environ[STEPS] = str(self._logs)
        context = multiprocessing.get_context("spawn")
        driver = context.Process(target=sweep_in, args=self._arguments)
        driver.start()
        return driver

    def _wait(self, is_time: Callable[[], bool], driver: Any) -> None:
        until_s = time.monotonic() + BOUND_S
        while not is_time():
            assert driver.is_alive(), f"the sweep ended early, with {driver.exitcode}"
            assert time.monotonic() < until_s, "it never came so far"
            time.sleep(0.01)


def one(kind: str, number: int, args: argparse.Namespace) -> dict[str, Any]:
    """Runs an undisturbed sweep, or one with a kill; returns its row."""
    needed = TRIALS * EPOCHS * -(-BUDGET // 16)
    moment = None
    if number >= 0:
        draws = random.Random(f"{args.seed}/{kind}").sample(range(1, needed), args.moments)
        moment = sorted(draws)[number]
    with tempfile.TemporaryDirectory(prefix="raygrad-kills-") as folder:
        os.environ[STEPS] = folder + "/steps"  # of the cluster's processes too
        with cluster_of(kind) as cluster:
            run = Sweep(kind, Path(folder), cluster, args.interval_s)
            begun_s = time.monotonic()
            victim, killed_s = run.run(moment)
            took_s = time.monotonic() - begun_s
        steps = run.steps()
        twice, lost_s = (0, 0.0) if moment is None else lost(steps, needed, victim, killed_s)
        assert moment is not None or len(steps) == needed
        return {
            "kind": kind, "number": number, "moment": moment, "needed": needed, "twice": twice,
            "lost_s": round(lost_s, 3), "took_s": round(took_s, 1), "rows": run.rows(),
            "step_s": round((steps[-1].begun_s - steps[0].begun_s) / (len(steps) - 1), 4),
            "processes": len({step.pid for step in steps}),
        }  # fmt: skip


def main() -> None:
    """Runs what is not in the record yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--moments", type=int, default=3, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval-s", type=float, default=3.0, help="between saves")
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    default = ROOT / "benchmarks" / "records" / f"{datetime.now(UTC):%Y-%m-%d}-sweep-kills.json"
    path = args.record or default
    record = Record("Whatever is killed, a sweep's results are the same.", vars(args))
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    record.content["rows"] = rows
    known = {(row["kind"], row["number"]) for row in rows}
    for kind in args.kinds:
        for number in range(-1, args.moments):
            if (kind, number) in known or (number < 0 and ALONE[kind] != kind):
                continue
            row = one(kind, number, args)
            record.add(**row)
            record.write(path)
            print(json.dumps({name: row[name] for name in row if name != "rows"}), flush=True)
    sys.exit(tell(rows, args.interval_s))


def tell(rows: list[dict[str, Any]], interval_s: float) -> int:
    """Prints what each kill lost; returns 1 if a result differs, or too much was lost."""
    alone = {row["kind"]: row["rows"] for row in rows if row["moment"] is None}
    print("| killed | at step | steps done twice | work lost, s | the same results |")
    print("|---|---|---|---|---|")
    wrong = 0
    for row in rows:
        if row["moment"] is None:
            continue
        same = row["rows"] == alone[ALONE[row["kind"]]]
        wrong |= not same or row["lost_s"] > interval_s
        print(
            f"| {row['kind']} | {row['moment']} of {row['needed']} | {row['twice']} | "
            f"{row['lost_s']:.2f} | {'yes' if same else 'NO'} |"
        )
    return int(wrong)


if __name__ == "__main__":
    main()
