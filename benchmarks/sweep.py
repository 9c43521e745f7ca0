"""What a sweep of 100 small trials costs beside its training, and how well it was planned.

Subsets of 175 to 5,400 images, drawn at random, retrain the MNIST CNN for a few epochs:

    plan        rates are measured as `raygrad plan` does, and the sweep's time is predicted
    sweep       raygrad's sweep, trials beside each other
    bare        the same trials as bare PyTorch loops, in as many plain processes, without Ray
    sequential  the same bare loops one after another in one process, with all threads

    python benchmarks/sweep.py --run runs/mnist --out /tmp/sweep-benchmark --ways plan sweep bare

The run folder holds the prepared data set and is only read; to keep a measurement short, validation
and test are cut to their first images.

"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from bare_loop import BareLoop
from recording import recorded

from raygrad.config import DataConfig, SweepConfig, TrainConfig
from raygrad.engine.session import ensure_ray
from raygrad.engine.sweep import job as sweep_engine
from raygrad.engine.sweep.calibrate import calibrate
from raygrad.pipeline.data_ways import study_data
from raygrad.runs.layout import RunLayout
from raygrad.training.models import build_network
from raygrad.training.plan import Sizes, predict, trial_time
from raygrad.training.recipes import recipe
from raygrad.training.retraining import positions_of
from raygrad.training.study_data import StudyData
from raygrad.training.trial import Trial

Planned = list[tuple[Trial, str]]


def cut(data: StudyData, val: int, test: int) -> StudyData:
    """Returns the data set with the first images of validation and test alone."""
    parts = {}
    for split, count in (("val", val), ("test", test)):
        arrays = getattr(data, split)
        parts[split] = dataclasses.replace(
            arrays, images=arrays.images[:count], labels=arrays.labels[:count]
        )
    return dataclasses.replace(data, **parts)


def make_trials(layout: RunLayout, data: StudyData, budgets: list[int], seeds: int) -> Planned:
    """Draws random subsets, written as the stage select writes them, with a trial for each."""
    planned = []
    for budget in budgets:
        for seed in range(seeds):
            fraction = budget / len(data.train.keys)
            url = layout.subset("random", fraction, seed)
            if not Path(url).exists():
                write_subset(url, data.train.keys, budget, seed)
            trial = Trial(
                network="cnn",
                score_network="cnn",
                score_column="loss",
                method="random",
                keep_fraction=fraction,
                budget=budget,
                seed=seed,
                protocol="equal_epochs",
                subset_digest=f"{budget}-{seed}",
                config_digest="benchmark",
            )
            planned.append((trial, url))
    return planned


def write_subset(url: str, keys: list[str], budget: int, seed: int) -> None:
    """Writes a random subset."""
    Path(url).parent.mkdir(parents=True, exist_ok=True)
    kept = np.random.default_rng([seed, budget]).permutation(len(keys))[:budget]
    table = pa.table({"key": [keys[at] for at in kept], "weight": np.ones(budget)})
    meta = {b"raygrad.subset": json.dumps({"seed": seed}).encode()}
    pq.write_table(table.replace_schema_metadata(meta), url)


class Memory:
    """Follows the memory of this process and of the largest of the trials' processes.

    A process's own memory stands apart from what it maps: code, and the images that all share,
    which are counted page by page as they are touched.
    """

    def __init__(self, folder: Path) -> None:
        self._trials, self.rows = folder, []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Looks no more."""
        self._ended.set()
        self._thread.join()

    def lines(self) -> list[str]:
        """Returns memory when a tenth of the trials, half and all of them were finished."""
        said = []
        most = max(done for done, _, _ in self.rows)
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            row = next((r for r in self.rows if r[0] >= share * most), self.rows[-1])
            done, driver, (own, mapped) = row
            trial = f"trial process {own:.0f} MB of its own and {mapped:.0f} MB mapped"
            said.append(f"{done:4d} trials: driver {driver[0]:.0f} MB of its own, {trial}")
        return said

    def _follow(self) -> None:
        while not self._ended.wait(0.5):
            done = len(list(self._trials.glob("*.json")))
            workers = [memory_mb(pid) for pid in trial_processes(os.getpid())]
            if workers:
                self.rows.append((done, memory_mb(os.getpid()), max(workers)))


def trial_processes(driver: int) -> list[int]:
    """Returns the processes of Tune's trials that descend from this driver."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(status.split("PPid:")[1].split()[0])
    found = []
    for pid, name in names.items():
        above = pid
        while above in parents and above not in (driver, 1):
            above = parents[above]
        if above == driver and name.startswith("ray::ImplicitFunc"):
            found.append(pid)
    return found


def memory_mb(pid: int) -> tuple[float, float]:
    """Returns a process's own resident memory, and what it maps of files and shared memory."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0, 0.0
    if "VmRSS:" not in status:
        return 0.0, 0.0
    own, *mapped = (
        int(status.split(name)[1].split()[0]) / 1024
        for name in ("RssAnon:", "RssFile:", "RssShmem:")
    )
    return own, sum(mapped)


def run_sweep(
    layout: RunLayout, trials: Planned, data: StudyData, config: TrainConfig, slots: int
) -> dict[str, float]:
    """Runs the sweep; returns its times and prints what the trials' memory was."""
    shutil.rmtree(layout.sweep, ignore_errors=True)
    folder = Path(layout.sweep, "trials")
    memory = Memory(folder)
    begun_s = time.time()
    rows = sweep_engine.sweep(SweepConfig(), config, trials, layout, lambda: data).to_pylist()
    wall_s = time.time() - begun_s
    memory.end()
    ends = {row["trial"]: (folder / f"{row['trial']}.json").stat().st_mtime for row in rows}
    first_s = min(ends[row["trial"]] - row["train_time_s"] for row in rows)
    last_s = max(ends.values())
    train_s = sum(row["train_time_s"] for row in rows)
    print("\n".join(memory.lines()))
    return {
        "wall_s": wall_s,
        "start_s": first_s - begun_s,
        "end_s": begun_s + wall_s - last_s,
        "train_s": train_s,
        # Of the processes' time between first and last, what was spent outside of `retrain`.
        "overhead_s": (slots * (last_s - first_s) - train_s) / len(rows),
    }


def bare_trial(trial: Trial, url: str, data: StudyData, config: TrainConfig) -> float:
    """Reads a subset, trains on it by hand and tests; returns the seconds."""
    begun_s = time.perf_counter()
    keys = pq.read_table(url)["key"].combine_chunks()
    kept = positions_of(keys, pa.array(data.train.keys, pa.large_string()))
    train = data.examples("train", kept)
    torch.manual_seed(trial.seed)
    network = build_network(trial.network, data.spec, trial.seed)
    loop = BareLoop(network, config, data.normalize, train.images, train.labels)
    val, test = data.examples("val"), data.examples("test")
    loop.train(config.epochs, (val.images, val.labels), (test.images, test.labels))
    return time.perf_counter() - begun_s


def run_bare(trials: Planned, data: StudyData, config: TrainConfig, threads: int) -> float:
    """Runs bare loops one after another in this process; returns the sum of their seconds."""
    torch.set_num_threads(threads)
    return sum(bare_trial(trial, url, data, config) for trial, url in trials)


def bare_process(
    out: str, run: str, shape: tuple[int, int, list[int], int], at: int, slots: int, pipe
) -> None:
    """A plain process that does every n-th of the trials when it is told to."""
    data, trials, config = prepared(run, out, *shape)
    torch.set_num_threads(1)
    bare_trial(*trials[0], data, config)
    pipe.send("ready")
    pipe.recv()
    pipe.send(run_bare(trials[at::slots], data, config, 1))


def beside_each_other(arguments: tuple, slots: int) -> tuple[float, float]:
    """Runs bare loops in plain processes; returns seconds from start to end and their sum."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for at in range(slots):
        mine, theirs = context.Pipe()
        processes.append(context.Process(target=bare_process, args=(*arguments, at, slots, theirs)))
        processes[-1].start()
        pipes.append(mine)
    for pipe in pipes:
        pipe.recv()
    begun_s = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    sums = [pipe.recv() for pipe in pipes]
    wall_s = time.perf_counter() - begun_s
    for process in processes:
        process.join()
    return wall_s, sum(sums)


def prepared(
    run: str, out: str, val: int, test: int, budgets: list[int], seeds: int, epochs: int = 2
) -> tuple[StudyData, Planned, TrainConfig]:
    """Returns the data set, the trials and how each is trained."""
    whole = study_data(RunLayout(run), DataConfig())
    assert isinstance(whole, StudyData)
    data = cut(whole, val, test)
    config = dataclasses.replace(
        recipe("mnist", "cnn"), epochs=epochs, augment="none", lr_decay_epochs=(), dynamics=False
    )
    return data, make_trials(RunLayout(out), data, budgets, seeds), config


def main() -> None:
    """Parses the flags, measures, and prints what every way took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run folder with MNIST prepared")
    parser.add_argument("--out", required=True, help="a folder for subsets and results")
    ways = ("plan", "sweep", "bare", "sequential")
    parser.add_argument("--ways", nargs="+", choices=ways, default=list(ways))
    parser.add_argument("--budgets", type=int, nargs=3, default=[175, 5400, 10],
                        help="smallest, largest, how many")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluated", type=int, nargs=2, default=[1000, 2000],
                        help="images of validation and test")  # fmt: skip
    parser.add_argument("--plan-seconds", type=float, default=10.0)
    args, record = recorded(parser, "A sweep of many trials costs little more than bare loops.")
    smallest, largest, count = args.budgets
    budgets = sorted({round(n) for n in np.geomspace(smallest, largest, count)})
    shape = (*args.evaluated, budgets, args.seeds)
    data, trials, config = prepared(args.run, args.out, *shape)
    threads = torch.get_num_threads()
    print(f"{len(trials)} trials, subsets {budgets}, {config.epochs} epochs, torch "
          f"{torch.__version__}, {threads} threads")  # fmt: skip
    found: dict[str, float] = {}
    slots = os.cpu_count() or 1
    steps: dict[str, Callable[[], None]] = {}

    def plan() -> None:
        ensure_ray()
        nonlocal slots
        placed = sweep_engine.sweep_placement(SweepConfig(device="cpu"))
        slots = placed.count
        rates = calibrate(("cnn",), config, data, placed, args.plan_seconds)["cnn"]
        print(rates)
        sizes = Sizes(len(data.train.labels), *args.evaluated)
        times = [trial_time(trial, rates, config, sizes, config.epochs) for trial, _ in trials]
        found["plan"] = predict(times, slots, rates.start_s, 1.0).wall_s
        found["plan, sum of trials"] = sum(t.time_s for t in times)

    def sweep() -> None:
        ensure_ray()
        times = run_sweep(RunLayout(args.out), trials, data, config, slots)
        found.update({f"sweep, {name}": value for name, value in times.items()})
        ray.shutdown()

    def bare() -> None:
        wall_s, sum_s = beside_each_other((args.out, args.run, shape), slots)
        found["bare, wall_s"], found["bare, sum_s"] = wall_s, sum_s

    def sequential() -> None:
        bare_trial(*trials[0], data, config)
        found["sequential, wall_s"] = run_bare(trials, data, config, threads)

    steps.update({"plan": plan, "sweep": sweep, "bare": bare, "sequential": sequential})
    for way in args.ways:
        steps[way]()
    for name, value in found.items():
        print(f"{name:24} {value:9.3f}")
        record.add(what=name, value=value)
    if "sweep" in args.ways:
        wall_s = found["sweep, wall_s"]
        after_first_s = wall_s - found["sweep, start_s"]
        if "bare" in args.ways:
            ideal_s = found["bare, sum_s"] / slots
            print(f"sweep / bare: {wall_s / ideal_s:.3f}, {after_first_s / ideal_s:.3f} without "
                  "the start of Tune and processes")  # fmt: skip
            own_s = (slots * after_first_s - found["bare, sum_s"]) / len(trials)
            print(f"a trial's fixed cost: {own_s:.3f} s")
        if "sequential" in args.ways:
            print(f"sequential / sweep: {found['sequential, wall_s'] / wall_s:.2f}")
        if "plan" in args.ways:
            print(f"plan / sweep: {found['plan'] / wall_s:.3f}")


if __name__ == "__main__":
    main()
