"""The scoring job beside what it could be at best, and beside its peers, over the same tars.

a: an actor's work against a bare loop that reads, decodes and scores in this process;
b: two actors against one, by the command line; c: from the command to the first committed part;
d: four checkpoints in one pass against one; e: the same norms by Opacus and by vmap in a plain loop
over the same tars; f: many tiny shards: driver memory, and what a shard costs; g: two shards under
way in one actor against one.

    python benchmarks/scoring_job.py a d e --tars 'DIR/photos-*.tar' --network resnet18 --size 224

One thread computes in each way of a, d and e, timed by CPU time by default, which is fair on a
machine that others use too; every round runs each way once, in turn.
"""

import argparse
import contextlib
import copy
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).parent))
from gradient_norm_peers import PEERS
from interleaved import print_rates, time_interleaved
from recording import recorded
from scoring_case import Case

from raygrad.data.index import Index
from raygrad.engine.score import actor as scoring_actor
from raygrad.engine.score.actor import ShardWork
from raygrad.runs import score_table


def part_a(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints an actor's rate against the bare loop's."""
    ways = {"bare loop": case.bare(), "actor": case.actor(), "decode only": case.decode_only}
    seconds = time_interleaved(ways, rounds, clock)
    case.record.add(part="a", images=case.count, seconds=seconds)
    print_rates(seconds, case.count, "images", "bare loop")


def part_g(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints what an actor gains by having two shards under way: by wall time, and by CPU time.

    `--answer-s` is what storage takes to answer, once when a shard is opened and once when its part
    is written, as object stores do; 0 is the disk as it is.
    """
    seconds: dict[str, list[float]] = {"one shard": [], "two shards": []}
    spent: dict[str, list[float]] = {"one shard": [], "two shards": []}
    shards = case.index.shards["name"].to_pylist()
    for number in range(rounds):
        for name, threads in (("one shard", 1), ("two shards", 2)):
            task = replace(case.task(1), out_url=str(case.folder / f"g-{number}-{threads}"))
            work = ShardWork(task)
            work.score(shards[0], lambda *_: None)  # what is prepared once
            todo = iter(shards[1:])
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
            with slow_to_answer(case.answer_s), ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(lambda shard: work.score(shard, lambda *_: None), todo):  # noqa: B023
                    pass
            seconds[name].append(time.perf_counter() - start_s)
            spent[name].append(time.process_time() - start_cpu_s)
    case.record.add(part="g", answer_s=case.answer_s, wall_s=seconds, cpu_s=spent)
    print(f"storage answers in {case.answer_s:g} s; wall time, then CPU time")
    for found in (seconds, spent):
        print_rates(found, case.count - case.count // len(shards), "images", "one shard")


@contextlib.contextmanager
def slow_to_answer(answer_s: float) -> Iterator[None]:
    """Lets the opening of a shard and the writing of a part take so much longer."""
    read, write = scoring_actor.read_rows, score_table.write_part

    def slow_read(index: Index, rows: Any) -> Iterator[Any]:
        time.sleep(answer_s)
        yield from read(index, rows)

    def slow_write(*args: Any, **options: Any) -> None:
        time.sleep(answer_s)
        write(*args, **options)

    scoring_actor.read_rows, score_table.write_part = slow_read, slow_write
    try:
        yield
    finally:
        scoring_actor.read_rows, score_table.write_part = read, write


def part_d(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints what four checkpoints in one pass cost against one."""
    ways = {"1 checkpoint": case.actor(), "4 checkpoints": case.actor(4),
            "decode only": case.decode_only}  # fmt: skip
    seconds = time_interleaved(ways, rounds, clock)
    case.record.add(part="d", images=case.count, seconds=seconds)
    print_rates(seconds, case.count, "images", "1 checkpoint")
    one, four, decode = (min(values) for values in seconds.values())
    bound = decode + 4 * (one - decode)
    print(f"4 compute + 1 decode: {bound:.2f} s of fastest rounds; one pass took {four:.2f} s")


def part_e(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints raygrad's rate against plain loops with the peers' norms."""
    ways = {"actor": case.actor()}
    for name in PEERS:
        try:
            ways[name] = case.peer(name)
            ways[name]()
        except Exception as refusal:  # noqa: BLE001 - a peer's refusal is a result
            ways.pop(name, None)
            print(f"{name}: refused: {str(refusal).splitlines()[0][:100]!r}")
    seconds = time_interleaved(ways, rounds, clock)
    case.record.add(part="e", images=case.count, seconds=seconds)
    print_rates(seconds, case.count, "images", "actor")


def command(case: Case, run: Path, *more: str, tree: str = "") -> subprocess.Popen[bytes]:
    """Starts the command that scores the tars, of another checkout where one is named."""
    flags = ["score", "--data", *case.tars, "--network", case.network, "--fresh-weights",
             "--run", str(run), "--image-size", str(case.spec.height),
             "--num-classes", str(case.spec.num_classes),
             "--columns", *case.columns, "--batch-size", str(case.batch), *more]  # fmt: skip
    here = str(Path(tree).resolve() if tree else Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": here}
    return subprocess.Popen(
        [sys.executable, "-m", "raygrad", *flags],
        cwd=here,
        env=environment,
        stderr=subprocess.DEVNULL,
    )


def part_b(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints the rate of two actors against one, by the time that the shards took on them."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for actors in rates:
            run = case.folder / f"b-{number}-{actors}"
            limit = ("--min-actors", str(actors), "--max-actors", str(actors))
            assert command(case, run, *limit).wait() == 0
            parts = list((run / "scores").glob("*/part-*.parquet"))
            spent = [float(pq.read_schema(p).metadata[b"raygrad.time_s"]) for p in parts]
            rates[actors].append(actors * case.count / sum(spent))
    case.record.add(part="b", images_per_s=rates)
    for one, two in zip(*rates.values(), strict=True):
        print(f"1 actor {one:.1f} images/s, 2 actors {two:.1f}: {two / one:.2f} times")


def part_c(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints the time from the command to the first committed part, and its CPU time.

    Trees are taken in turn. The CPU time is that of the command and of every process below it.
    """
    for number in range(rounds):
        for name, tree in case.trees.items():
            run = case.folder / f"c-{number}-{name}"
            start_s = time.perf_counter()
            process = command(case, run, tree=tree)
            while process.poll() is None and not list(run.glob("scores/*/part-*.parquet")):
                time.sleep(0.02)
            first_s = time.perf_counter() - start_s
            spent = cpu_s_by_kind(process.pid)
            assert process.wait() == 0
            end_s = time.perf_counter() - start_s
            case.record.add(part="c", tree=name, first_part_s=first_s, end_s=end_s, cpu_s=spent)
            print(
                f"{name}: first part after {first_s:.1f} s and {sum(spent.values()):.1f} CPU s, "
                f"the end after {end_s:.1f} s"
            )
            for kind, taken in sorted(spent.items(), key=lambda item: -item[1])[:8]:
                print(f"    {taken:5.1f} s {kind}")


def cpu_s_by_kind(pid: int) -> dict[str, float]:
    """Returns the CPU seconds of a process and of those below it, by what they are."""
    import ray  # noqa: F401 - it brings its own psutil
    import psutil  # isort: skip

    found: Counter[str] = Counter()
    top = psutil.Process(pid)
    for process in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            line = process.cmdline() or [process.name()]
            kind = line[0] if line[0].startswith("ray::") else Path(line[0]).name
            times = process.cpu_times()
            found["command" if process == top else kind] += times.user + times.system
    return {kind: round(taken, 2) for kind, taken in found.items()}


def part_f(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints the driver's peak memory and the time for many shards of two images."""
    with tarfile.open(case.tars[0]) as tar:
        members = [
            (Path(m.name).name, tar.extractfile(m).read())  # type: ignore[union-attr]  # a plain file
            for m in list(tar)[:4]
        ]
    for count in case.tiny:
        folder = case.folder / f"tiny-{count}"
        folder.mkdir()
        for number in range(count):
            with tarfile.open(folder / f"t-{number:05d}.tar", "w") as out:
                for name, content in members:
                    member = tarfile.TarInfo(f"{number:05d}-{name}")
                    member.size = len(content)
                    out.addfile(member, io.BytesIO(content))
        tiny = copy.copy(case)
        tiny.tars = [str(folder / f"t-{{00000..{count - 1:05d}}}.tar")]
        start_s = time.perf_counter()
        process = command(tiny, case.folder / f"f-{count}")
        peak = 0
        while process.poll() is None:
            peak = max(peak, _peak_kb(process.pid))
            time.sleep(0.1)
        spent = time.perf_counter() - start_s
        assert process.wait() == 0
        case.record.add(part="f", shards=count, wall_s=spent, driver_mib=peak / 1024)
        print(f"{count} shards: {spent:.1f} s, driver at most {peak / 1024:.0f} MB", flush=True)


def _peak_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(t.split()[1]) for t in text.splitlines() if t.startswith("VmHWM")), 0)


PARTS = {"a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e, "f": part_f, "g": part_g}


def main() -> None:
    """Parses the flags and runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--tars", required=True, help="a glob of tars with .cls labels")
    parser.add_argument("--shards", type=int, help="use the first so many only")
    parser.add_argument("--network", default="cnn5")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=32, help="what the network sees, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--norm", default="l2", choices=("l1", "l2", "linf"))
    parser.add_argument("--tiny", type=int, nargs="+", default=[10, 100, 1000, 10_000],
                        help="shards of part f")  # fmt: skip
    parser.add_argument("--answer-s", type=float, default=0.0, help="of part g")
    parser.add_argument("--trees", nargs="+", default=["now="],
                        help="checkouts of part c, as name=path")  # fmt: skip
    parser.add_argument("--peer-path", help="a folder with Opacus and BackPACK")
    args, record = recorded(parser, "What a scoring job costs beside its bare loop.")
    if args.peer_path:
        sys.path.append(args.peer_path)
    torch.set_num_threads(1)
    case = Case(args, record)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    print(f"{args.network}, {case.count} images in {len(case.tars)} tars, {args.clock} time")
    try:
        for part in args.parts:
            print(f"\n({part}) {PARTS[part].__doc__.splitlines()[0]}", flush=True)
            PARTS[part](case, args.rounds, clock)
    finally:
        shutil.rmtree(case.folder)


if __name__ == "__main__":
    main()
