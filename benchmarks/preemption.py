r"""What spot preemptions cost when the unit of work is a shard: simulated, and checked for real.

A pool of actors takes shards from one queue. An actor is taken away at a constant rate; what it
had done of its shard is lost, the shard goes back to the queue, and another actor stands in its
place after a restart. Nothing else is lost, as a finished shard is committed. With a rate
:math:`\lambda` and a shard of :math:`s` seconds an actor is busy for

.. math:: E[T] = (e^{\lambda s} - 1) / \lambda

on average until the shard is done (restarts excluded), and is taken :math:`e^{\lambda s} - 1`
times on the way. The simulator adds the restarts, the queue and its end, where actors stand idle.

    python benchmarks/preemption.py simulate
    python benchmarks/preemption.py check --shards 'SHARDS/train-*.tar' --mean-life-s 15

What a sweep's trials lose, which are hours long and no shards, is in trial_preemption.py.

`check` scores real shards with real actors on this machine, kills them at random times by their
process ids, and sets the simulator's prediction against it.
"""

import argparse
import heapq
import math
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from recording import Record, recorded


@dataclass(frozen=True)
class Outcome:
    """What one simulated job came to."""

    wall_s: float
    """Seconds from the first shard's begin to the last shard's end."""
    wasted_s: float
    """Actor-seconds spent on attempts that were lost."""
    restart_s: float
    """Actor-seconds without an actor, or with one that was not ready."""
    lost_attempts: int
    """Attempts that were lost."""


def simulate(
    shard_s: Sequence[float],
    num_actors: int,
    mean_life_s: float,
    restart_s: float,
    rng: random.Random,
) -> Outcome:
    """Simulates one job.

    Args:
        shard_s: Seconds that each shard takes on one actor, in the order of the queue.
        num_actors: Places for actors; each is filled again after a loss.
        mean_life_s: Mean seconds between two losses of a place, exponential; inf for none.
        restart_s: Seconds from a loss until the place takes a shard again.
        rng: Where the lives come from.
    """
    queue = list(reversed(shard_s))
    free = [0.0] * num_actors  # when each place takes its next shard
    returned: list[tuple[float, float]] = []  # when a lost shard is back in the queue, and its size
    wasted_s = gap_s = end_s = 0.0
    lost = 0
    while queue or returned:
        now_s = heapq.heappop(free)
        if returned and returned[0][0] <= now_s:
            size_s = heapq.heappop(returned)[1]
        elif queue:
            size_s = queue.pop()
        else:
            # Only shards under way are left: this place waits for the next to be lost.
            heapq.heappush(free, returned[0][0])
            continue
        # An exponential life has no memory: what is left of it is drawn when a shard is taken.
        left_s = _life(mean_life_s, rng)
        if size_s <= left_s:
            end_s = max(end_s, now_s + size_s)
            heapq.heappush(free, now_s + size_s)
            continue
        lost += 1
        wasted_s += left_s
        gap_s += restart_s
        heapq.heappush(returned, (now_s + left_s, size_s))
        heapq.heappush(free, now_s + left_s + restart_s)
    return Outcome(end_s, wasted_s, gap_s, lost)


def _life(mean_life_s: float, rng: random.Random) -> float:
    return math.inf if math.isinf(mean_life_s) else rng.expovariate(1 / mean_life_s)


def expected_busy_s(shard_s: float, mean_life_s: float) -> float:
    r"""Returns :math:`(e^{\lambda s} - 1) / \lambda`, busy seconds until a shard is done."""
    return mean_life_s * math.expm1(shard_s / mean_life_s)


def many(runs: int, *arguments: float | Sequence[float], seed: int = 0) -> list[Outcome]:
    """Simulates a job several times."""
    rng = random.Random(seed)
    return [simulate(*arguments, rng) for _ in range(runs)]  # type: ignore[arg-type]  # numbers in order


def print_simulations(args: argparse.Namespace, record: Record) -> None:
    """Prints and records completion time and waste over sizes of shards and rates of preemption."""
    total_s = args.device_hours * 3600
    print(
        f"{args.device_hours:g} device-hours on {args.actors} actors, {args.restart_s:g} s to "
        f"replace one; ideal {total_s / args.actors / 3600:.3f} h; n = {args.runs} simulations"
    )
    print("| shard | lost an hour, each | hours, mean | 5% to 95% | x ideal | device time wasted |")
    print("|---|---|---|---|---|---|")
    for shard_s in args.shard_s:
        shards = [shard_s] * max(1, round(total_s / shard_s))
        for rate in args.per_hour:
            life_s = 3600 / rate if rate else math.inf
            found = many(args.runs, shards, args.actors, life_s, args.restart_s)
            hours = sorted(one.wall_s / 3600 for one in found)
            mean, ideal = statistics.mean(hours), sum(shards) / args.actors / 3600
            low, high = hours[int(0.05 * len(hours))], hours[int(0.95 * len(hours))]
            share = statistics.mean(one.wasted_s + one.restart_s for one in found) / sum(shards)
            record.add(shard_s=shard_s, an_hour=rate, hours=hours, ideal_h=ideal, wasted=share)
            print(
                f"| {shard_s:g} s | {rate:g} | {mean:.3f} | {low:.3f} to {high:.3f} | "
                f"{mean / ideal:.3f} | {share:.2%} |"
            )


class Killer(threading.Thread):
    """Kills the actors of a kind of this process's Ray at random, and times their restarts.

    An actor of a sweep is not started again but followed by another one, of another id.
    """

    def __init__(self, mean_life_s: float, seed: int, kind: str = "ShardScorer") -> None:
        super().__init__(daemon=True)
        self._kind = kind
        self._rng, self._mean_life_s = random.Random(seed), mean_life_s
        self.ended = threading.Event()
        self.killed = 0
        self.restarts_s: list[float] = []
        self.first_alive_s = 0.0

    def run(self) -> None:
        """Looks at the actors ten times a second until `ended` is set."""
        doomed: dict[str, float] = {}  # when an actor will be killed
        died: dict[str, tuple[float, int]] = {}  # when, and which process
        while not self.ended.wait(0.1):
            now_s = time.monotonic()
            for actor_id, state, pid in _actors(self._kind):
                if actor_id in died and pid == died[actor_id][1]:
                    continue  # Ray does not know yet
                if state == "ALIVE" and actor_id in died:
                    self.restarts_s.append(now_s - died.pop(actor_id)[0])
                    doomed[actor_id] = now_s + _life(self._mean_life_s, self._rng)
                elif state == "ALIVE" and actor_id not in doomed:
                    followed = next((one for one in died if one != actor_id), None)
                    if self._kind != "ShardScorer" and followed is not None:
                        self.restarts_s.append(now_s - died.pop(followed)[0])
                    self.first_alive_s = self.first_alive_s or now_s
                    doomed[actor_id] = now_s + _life(self._mean_life_s, self._rng)
                elif state == "ALIVE" and doomed[actor_id] <= now_s and not self.ended.is_set():
                    os.kill(pid, signal.SIGKILL)
                    doomed[actor_id] = math.inf
                    died[actor_id] = (now_s, pid)
                    self.killed += 1


def _actors(kind: str) -> list[tuple[str, str, int]]:
    """Returns id, state and process id of every actor whose class is named so."""
    import ray

    if not ray.is_initialized():
        return []
    found = ray._private.state.actors()
    return [
        (actor_id, one["State"], one["Pid"])
        for actor_id, one in found.items()
        if kind in one["ActorClassName"]
    ]


def check(args: argparse.Namespace, record: Record) -> None:
    """Scores real shards while actors are killed, and sets a simulation beside each run.

    The simulation is given the run's own shards' seconds and its mean restart, so that a machine
    that is busy slows both; what it predicts is the time lost to kills, and the queue's end.
    """
    print("| run | actors killed | restart, mean | shard, mean (sd) | s, without kills |"
          " s, real | s, simulated mean (5% to 95%) | with as many kills |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for repeat in range(args.repeats):
        wall_s, shard_s, killer = score_once(args, args.mean_life_s, seed=repeat)
        restart_s = statistics.mean(killer.restarts_s) if killer.restarts_s else 0.0
        found = many(2000, shard_s, args.actors, args.mean_life_s, restart_s)
        walls = sorted(one.wall_s for one in found)
        alike = [one.wall_s for one in found if one.lost_attempts == killer.killed]
        calm_s = simulate(shard_s, args.actors, math.inf, 0.0, random.Random(0)).wall_s
        record.add(
            repeat=repeat,
            killed=killer.killed,
            restarts_s=killer.restarts_s,
            shard_s=shard_s,
            calm_s=calm_s,
            wall_s=wall_s,
            simulated_s=[walls[100], statistics.mean(walls), walls[1900]],
            with_as_many_kills_s=alike,
        )
        print(
            f"| {repeat} | {killer.killed} | {restart_s:.1f} s (n = {len(killer.restarts_s)}) | "
            f"{statistics.mean(shard_s):.2f} ({statistics.stdev(shard_s):.2f}) | {calm_s:.1f} | "
            f"{wall_s:.1f} | {statistics.mean(walls):.1f} ({walls[100]:.1f} to {walls[1900]:.1f}) "
            f"| {statistics.mean(alike) if alike else math.nan:.1f} (n = {len(alike)}) |",
            flush=True,
        )


def score_once(
    args: argparse.Namespace, mean_life_s: float, seed: int = 0
) -> tuple[float, list[float], Killer]:
    """Scores the shards into a folder of its own while actors are killed.

    Returns:
        Seconds from the first actor's readiness to the end, those of each shard, and the killer.
    """
    from raygrad import pipeline
    from raygrad.config import DataConfig, ScoreConfig, StudyConfig, TrainConfig
    from raygrad.engine.session import ensure_ray, session
    from raygrad.runs.score_table import PROVENANCE, finished_parts
    from raygrad.storage import files
    from raygrad.storage.manifest import read_json

    with tempfile.TemporaryDirectory(prefix="preemption-") as run:
        config = StudyConfig(
            run,
            data=DataConfig(tars=(args.shards,), val_fraction=0.0),
            train=TrainConfig(network=args.network),
            score=ScoreConfig(
                network=args.network, image_size=args.image_size, min_actors=args.actors,
                max_actors=args.actors, device="cpu",
            ),
        )  # fmt: skip
        pipeline.bind(config)
        with session():
            ensure_ray()
            pipeline.prepare(config)
            killer = Killer(mean_life_s, seed)
            killer.start()
            facts = pipeline.score(config)
            end_s = time.monotonic()
            killer.ended.set()
            killer.join()
        scores = files.join(run, "scores", args.network)
        provenance = read_json(files.join(scores, PROVENANCE))
        times = [part.time_s for part in finished_parts(scores, provenance).values()]
        assert facts["num_shards"] == len(times)
        return end_s - killer.first_alive_s, times, killer


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    simulated = commands.add_parser("simulate")
    simulated.add_argument("--device-hours", type=float, default=32.0)
    simulated.add_argument("--actors", type=int, default=32)
    simulated.add_argument("--restart-s", type=float, default=240.0)
    simulated.add_argument("--shard-s", type=float, nargs="+", default=[10, 60, 300, 1200])
    simulated.add_argument("--per-hour", type=float, nargs="+", default=[0, 0.1, 1, 4])
    simulated.add_argument("--runs", type=int, default=200)
    simulated.set_defaults(run=print_simulations)
    checked = commands.add_parser("check")
    checked.add_argument("--shards", required=True, help="your own shards, as a URL with a glob")
    checked.add_argument("--network", default="resnet18")
    checked.add_argument("--image-size", type=int, default=96)
    checked.add_argument("--actors", type=int, default=2)
    checked.add_argument("--mean-life-s", type=float, default=15.0)
    checked.add_argument("--repeats", type=int, default=2)
    checked.set_defaults(run=check)
    args, record = recorded(parser, "What preemptions cost scoring.")
    args.run(args, record)


if __name__ == "__main__":
    main()
