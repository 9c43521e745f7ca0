r"""What spot preemptions cost a sweep: simulated, with measured saves and restarts, and checked.

A retraining is one piece of hours, which no queue makes shorter: taken away, it goes on from what
it saved last. With losses at a rate :math:`\lambda`, a save of :math:`c` seconds after every
:math:`\tau` seconds of work, each such piece keeps its place busy for

.. math:: E[T] = (e^{\lambda (\tau + c)} - 1) / \lambda

on average, as a shard does (see preemption.py), restarts excluded.

    python benchmarks/trial_preemption.py simulate
    python benchmarks/trial_preemption.py saving --network vgg16 --image-size 224 --url s3://BUCKET/x
    python benchmarks/trial_preemption.py check --trials 12 --mean-life-s 25

What a save and a restart take is by default the median of what was measured here, see `Measured`;
how long another node takes to come, rates of losses, hours of work and prices stay assumptions.

`saving` measures what a save takes the loop, and until it is on storage. `check` runs a real sweep
whose trials are killed by their process ids, compares its results with those of an undisturbed one,
bit for bit, and its wall time with the simulator's.
"""

import argparse
import heapq
import json
import math
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preemption import Killer, Outcome, _life, expected_busy_s
from recording import Record, recorded

RECORDS = Path(__file__).parent / "records"
_NEVER = 1e4
"""A piece that takes this many times the work of the longest trial is not simulated."""


@dataclass(frozen=True)
class Saves:
    """How a trial saves its state."""

    interval_s: float
    """Seconds of work between two saves; inf for none."""
    cost_s: float
    """Seconds of the loop that a save takes."""

    def attempt_s(self, work_s: float) -> float:
        """Returns the seconds that so much work takes where nothing is lost."""
        return work_s + self.cost_s * max(0, math.ceil(work_s / self.interval_s) - 1)

    def kept_s(self, spent_s: float) -> float:
        """Returns the work that is kept of an attempt that was lost after so many seconds."""
        if math.isinf(self.interval_s):
            return 0.0
        return self.interval_s * math.floor(spent_s / (self.interval_s + self.cost_s))


@dataclass(frozen=True)
class Measured:
    """What was measured of saves and restarts, as medians."""

    save_s: float
    """Seconds that the loop waits for a copy of VGG16's state; it is written beside the loop."""
    begin_s: float
    """Seconds from a kill to a trial's first step, of a state of no size."""
    restore_s: float
    """Seconds that reading VGG16's state takes."""

    @property
    def restart_s(self) -> float:
        """Seconds until a killed trial works again, on a node that is there."""
        return self.begin_s + self.restore_s


SAVING, KILLS = "2026-11-29-trial-saving.json", "2026-11-28-trial-kills.json"
"""The records of `saving` and of `check` that stand for what saves and restarts take."""


def measured() -> Measured:
    """Returns what the records hold."""
    saves = json.loads((RECORDS / SAVING).read_text())["rows"]
    (kills,) = json.loads((RECORDS / KILLS).read_text())["rows"]
    # Of a row is the mean restart, and of each kill the part until the next process is alive.
    before_s = kills["restart_s"] - statistics.mean(kills["restarts_s"])
    return Measured(
        statistics.median(row["copy_s"] for row in saves),
        statistics.median(kills["restarts_s"]) + before_s,
        statistics.median(row["restore_s"] for row in saves),
    )


def simulate_trials(
    work_s: Sequence[float],
    num_places: int,
    mean_life_s: float,
    restart_s: float,
    saves: Saves,
    rng: random.Random,
) -> Outcome:
    """Simulates one sweep: a trial that is lost stays with its place, and goes on from its save.

    Args:
        work_s: Seconds of work of each trial, in the order of the queue.
        num_places: Trials at a time.
        mean_life_s: As of `simulate`.
        restart_s: Seconds from a loss until the trial works again.
        saves: How trials save.
        rng: Where the lives come from.
    """
    free = [0.0] * num_places
    wasted_s = gap_s = 0.0
    lost = 0
    for work in work_s:
        now_s, left_s = heapq.heappop(free), work
        while (life_s := _life(mean_life_s, rng)) < saves.attempt_s(left_s):
            kept_s = saves.kept_s(life_s)
            lost += 1
            wasted_s += life_s - kept_s
            gap_s += restart_s
            now_s += life_s + restart_s
            left_s -= kept_s
        heapq.heappush(free, now_s + saves.attempt_s(left_s))
    return Outcome(max(free), wasted_s, gap_s, lost)


def print_trials(args: argparse.Namespace, record: Record) -> None:
    """Prints and records what a sweep on spot nodes takes and costs, over intervals of saves."""
    work_s = sorted((hours * 3600 for hours in args.trial_hours), reverse=True)
    ideal_h = sum(work_s) / 3600
    taken = measured()
    save_s = taken.save_s if args.save_s is None else args.save_s
    restart_s = taken.restart_s if args.restart_s is None else args.restart_s
    print(
        f"{len(work_s)} trials of {ideal_h:g} GPU-hours, {args.places} at a time; a save takes "
        f"{save_s:.2f} s, a restart {restart_s:.2f} s and {args.node_s:g} s for another node; "
        f"n = {args.runs} simulations"
    )
    record.add(save_s=save_s, restart_s=restart_s, node_s=args.node_s, sources=[SAVING, KILLS])
    restart_s += args.node_s
    print("| saved every | lost an hour, each | hours, mean | 95% | x GPU-hours | losses | cost |")
    print("|---|---|---|---|---|---|---|")
    for interval_s in args.interval_s:
        for rate in args.per_hour:
            life_s, rng = 3600 / rate if rate else math.inf, random.Random(0)
            saves = Saves(interval_s, save_s)
            if expected_busy_s(min(interval_s, work_s[0]), life_s) > _NEVER * work_s[0]:
                record.add(interval_s=interval_s, an_hour=rate, hours=None)
                print(f"| {interval_s:g} s | {rate:g} | never | | | | |")
                continue
            found = [
                simulate_trials(work_s, args.places, life_s, restart_s, saves, rng)
                for _ in range(args.runs)
            ]
            hours = sorted(one.wall_s / 3600 for one in found)
            saving_s = sum(map(saves.attempt_s, work_s)) - sum(work_s)
            extra_h = statistics.mean(o.wasted_s + o.restart_s + saving_s for o in found) / 3600
            lost = statistics.mean(one.lost_attempts for one in found)
            cost = args.price * (ideal_h + extra_h)
            record.add(
                interval_s=interval_s, an_hour=rate, hours=hours, extra_h=extra_h, lost=lost,
                cost=cost,
            )  # fmt: skip
            print(
                f"| {interval_s:g} s | {rate:g} | {statistics.mean(hours):.1f} | "
                f"{hours[int(0.95 * len(hours))]:.1f} | {1 + extra_h / ideal_h:.3f} | {lost:.1f} | "
                f"${cost:,.0f} |"
            )


def measure_saving(args: argparse.Namespace, record: Record) -> None:
    """Measures the copy that a loop waits for, and the write beside it, of one network's state."""
    import torch

    from raygrad.config import TrainConfig
    from raygrad.storage import files
    from raygrad.training.checkpoints import from_bytes
    from raygrad.training.examples import Examples
    from raygrad.training.loop import TrainingLoop
    from raygrad.training.models import ImageSpec, build_network
    from raygrad.training.preprocess import Normalize
    from raygrad.training.saved_state import StateFile

    spec = ImageSpec(3, args.image_size, args.image_size, 1000)
    images = torch.zeros(2, 3, args.image_size, args.image_size, dtype=torch.uint8)
    split = Examples(images, torch.tensor([0, 1]))
    recipe = TrainConfig(network=args.network, epochs=1, batch_size=2, lr_decay_epochs=())
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    network = build_network(args.network, spec, 0)
    loop = TrainingLoop(network, recipe, normalize, split, split, order_seed=0)
    loop.run()  # the optimiser's state and the best weights are there from now on
    print("| copy, s | copy and write, s | CPU of both, s | restore, s | bytes |")
    print("|---|---|---|---|---|")
    for repeat in range(args.repeats):
        begun_s, busy_s = time.perf_counter(), time.process_time()
        state = StateFile(args.url)
        with state:
            state.save_if_due(loop)
            copy_s = time.perf_counter() - begun_s
        both_s, busy_s = time.perf_counter() - begun_s, time.process_time() - busy_s
        begun_s = time.perf_counter()
        loop.load_state_dict(from_bytes(files.read_bytes(args.url))["loop"])
        restore_s = time.perf_counter() - begun_s
        size = files.file_size(args.url)
        record.add(
            repeat=repeat, copy_s=copy_s, both_s=both_s, cpu_s=busy_s, restore_s=restore_s,
            bytes=size,
        )  # fmt: skip
        print(f"| {copy_s:.3f} | {both_s:.3f} | {busy_s:.3f} | {restore_s:.3f} | {size:,} |")
    files.remove(args.url)


def check(args: argparse.Namespace, record: Record) -> None:
    """Runs a sweep whose trials are killed, and one that is left alone; sets a simulation beside.

    A restart is what was measured from a kill to the next process, and what a trial does before
    its first step; the work is what the undisturbed sweep's rows say of each trial.
    """
    with tempfile.TemporaryDirectory(prefix="preemption-") as folder:
        drawn = draw_subsets(args, f"{folder}/drawn")
        calm, calm_s, _ = sweep_once(args, drawn, f"{folder}/calm", math.inf, seed=0)
        found, wall_s, killer = sweep_once(
            args, drawn, f"{folder}/killed", args.mean_life_s, seed=1
        )
    assert killer.killed, "no trial was found, so that none was killed"
    same = ["trial", "test_accuracy", "test_loss", "best_epoch", "steps", "examples_seen"]
    assert found.select(same).equals(calm.select(same)), "kills changed a result"
    work_s = calm["loop_time_s"].to_pylist()
    each_s = calm["train_time_s"].to_pylist()
    before_s = statistics.mean(a - b for a, b in zip(each_s, work_s, strict=True))
    restart_s = before_s + (statistics.mean(killer.restarts_s) if killer.restarts_s else 0.0)
    saves = Saves(args.interval_s, 0.0)
    extra_s = (
        calm_s - simulate_trials(work_s, args.places, math.inf, 0.0, saves, random.Random(0)).wall_s
    )  # of Ray and of processes that start, which kills do not change
    walls = sorted(
        extra_s
        + simulate_trials(
            work_s, args.places, args.mean_life_s, restart_s, saves, random.Random(n)
        ).wall_s
        for n in range(2000)
    )
    record.add(
        killed=killer.killed, wall_s=wall_s, calm_s=calm_s, work_s=work_s, restart_s=restart_s,
        restarts_s=killer.restarts_s, simulated_s=[walls[100], walls[1000], walls[1900]],
    )  # fmt: skip
    print(
        f"{len(work_s)} trials, {killer.killed} kills, the same results; restart {restart_s:.1f} s "
        f"(n = {len(killer.restarts_s)}); {calm_s:.0f} s without, {wall_s:.0f} s with; simulated "
        f"{walls[1000]:.0f} ({walls[100]:.0f} to {walls[1900]:.0f})"
    )


def draw_subsets(args: argparse.Namespace, run: str) -> str:
    """Makes a run of the digits up to its random subsets; returns its folder."""
    from raygrad import pipeline
    from raygrad.engine.session import ensure_ray, session

    config = study_of(args, run)
    pipeline.bind(config)
    with session():
        ensure_ray()
        for stage in (pipeline.prepare, pipeline.train, pipeline.score, pipeline.select):
            stage(config)
    return run


def study_of(args: argparse.Namespace, run: str) -> Any:
    """Returns the study whose sweep is killed."""
    from raygrad.config import DataConfig, SelectConfig, StudyConfig, SweepConfig
    from raygrad.training.recipes import recipe

    return StudyConfig(
        run,
        data=DataConfig(source="digits"),
        train=replace(recipe("digits", "cnn"), epochs=args.epochs, patience=args.epochs),
        select=SelectConfig(
            methods=("random",), keep_fractions=(0.8,), seeds=tuple(range(args.trials))
        ),
        sweep=SweepConfig(max_concurrent=args.places, save_interval_s=args.interval_s),
    )


def sweep_once(
    args: argparse.Namespace, drawn: str, run: str, mean_life_s: float, seed: int
) -> Any:
    """Retrains on the subsets of a run, in a copy; returns results, seconds, and the killer."""
    from raygrad import pipeline
    from raygrad.engine.session import ensure_ray, session

    shutil.copytree(drawn, run)
    config = study_of(args, run)
    with session():
        ensure_ray()
        killer = Killer(mean_life_s, seed, kind="ImplicitFunc")
        killer.start()
        begun_s = time.monotonic()
        found = pipeline.sweep(config)
        took_s = time.monotonic() - begun_s
        killer.ended.set()
        killer.join()
    return found, took_s, killer


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    simulated = commands.add_parser("simulate")
    simulated.add_argument("--trial-hours", type=float, nargs="+", default=[65, 48, 33, 16, 8] * 3)
    simulated.add_argument("--places", type=int, default=8)
    simulated.add_argument("--interval-s", type=float, nargs="+", default=[60, 300, 1800, math.inf])
    simulated.add_argument("--save-s", type=float, help="by default as measured")
    simulated.add_argument("--restart-s", type=float, help="by default as measured")
    simulated.add_argument("--node-s", type=float, default=300.0, help="assumed: a node that comes")
    simulated.add_argument("--per-hour", type=float, nargs="+", default=[0, 0.1, 1])
    simulated.add_argument("--price", type=float, default=0.6, help="of a GPU-hour, spot")
    simulated.add_argument("--runs", type=int, default=200)
    simulated.set_defaults(run=print_trials)
    saving = commands.add_parser("saving")
    saving.add_argument("--network", default="vgg16_32")
    saving.add_argument("--image-size", type=int, default=32)
    saving.add_argument("--url", default="trial.state", help="a file that is replaced and removed")
    saving.add_argument("--repeats", type=int, default=5)
    saving.set_defaults(run=measure_saving)
    checked = commands.add_parser("check")
    checked.add_argument("--trials", type=int, default=12)
    checked.add_argument("--epochs", type=int, default=60)
    checked.add_argument("--places", type=int, default=2)
    checked.add_argument("--interval-s", type=float, default=5.0)
    checked.add_argument("--mean-life-s", type=float, default=25.0)
    checked.set_defaults(run=check)
    args, record = recorded(parser, "What preemptions cost a sweep.")
    args.run(args, record)


if __name__ == "__main__":
    main()
