"""What very many tiny shards cost the driver: CPU time a shard, and memory.

    python benchmarks/many_shards.py --shards 1000 2000 10000

Tars of two images of 8 x 8 pixels on this disk, scored by a linear network: next to no work, so
that what is left is what a shard costs. The commands `score`, which indexes on the way, `score`
once more where all parts are there and only the end of the stage is missing, and `select`. For
each: CPU seconds of the command's own process (those before scoring begins apart) and of the
processes below it, by what they are, and the peak of its memory. What a shard costs is the slope
between two sizes, without what a start costs.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from recording import ROOT, Record, recorded

SIZE, CLASSES = 8, 2
BEGINS = "score-linear: starts"
_POLL_S = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
SCORE = f"--network linear --fresh-weights --num-classes {CLASSES} --image-size {SIZE}"
COMMANDS = {
    "score": f"{SCORE} --columns grad_l2_all loss",
    "score again": f"{SCORE} --columns grad_l2_all loss",
    "select": "--fresh-scores --methods max_gradient --keep-fractions 0.1 --seeds 0",
}


def make(folder: Path, count: int) -> str:
    """Makes so many tars; returns their URL."""
    rng, width = np.random.default_rng(0), len(str(count - 1))
    for number in range(count):
        with tarfile.open(folder / f"t-{number:0{width}}.tar", "w") as tar:
            for at in range(2):
                picture, name = io.BytesIO(), f"{number:07}-{at}"
                pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                Image.fromarray(pixels).save(picture, "PNG")
                add(tar, f"{name}.png", picture.getvalue())
                add(tar, f"{name}.cls", str((number + at) % CLASSES).encode())
    return str(folder / f"t-{{{0:0{width}}..{count - 1}}}.tar")


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a member."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def watched(command: list[str], log: Path) -> dict[str, Any]:
    """Runs a command; returns its seconds, its own CPU seconds, its peak, and those below it."""
    begun_s = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "raygrad", *command], env=environment, stderr=stderr
        )
    own: dict[str, float] = {}
    before: dict[str, float] = {}
    below: dict[int, tuple[str, float]] = {}
    while process.poll() is None:
        own = usage(process.pid) or own
        if not before and BEGINS in log.read_text():
            before = {f"{name}_before": value for name, value in own.items()}
        below |= {pid: (kind(pid), found["cpu_s"]) for pid in under(process.pid)
                  if (found := usage(pid))}  # fmt: skip
        time.sleep(_POLL_S)
    assert process.returncode == 0, log.read_text()
    spent: dict[str, float] = {}
    for name, cpu_s in below.values():
        spent[name] = spent.get(name, 0.0) + cpu_s
    most = dict(sorted(spent.items(), key=lambda item: -item[1])[:8])
    return {"wall_s": time.perf_counter() - begun_s, **own, **before, "below_cpu_s": most}


def usage(pid: int) -> dict[str, float]:
    """Returns the CPU seconds of a process and its peak of resident memory; none if it ended."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    peak = next((line.split()[1] for line in status.splitlines() if "VmHWM" in line), None)
    if peak is None:
        return {}
    return {"cpu_s": sum(map(int, times)) / _TICKS, "peak_mib": int(peak) / 1024}


def under(pid: int) -> list[int]:
    """Returns the processes below a process."""
    found, left = [], [pid]
    while left:
        try:
            tasks = Path(f"/proc/{left.pop()}/task").iterdir()
            children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
        except OSError:
            continue
        found += children
        left += children
    return found


def kind(pid: int) -> str:
    """Returns what a process is: the class of a Ray actor, or the name of its program."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "ended"
    first = line[0].decode(errors="replace")
    return first.split(".")[0] if first.startswith("ray::") else Path(first).name


def measure(count: int, record: Record) -> None:
    """Measures the commands over so many shards."""
    with tempfile.TemporaryDirectory(prefix="many-shards-") as name:
        folder, run = Path(name), Path(name) / "run"
        data = make(folder, count)
        for step, flags in COMMANDS.items():
            if step == "score again":
                for marker in run.rglob("*score-linear*"):
                    shutil.rmtree(marker) if marker.is_dir() else marker.unlink()
            verb = step.split()[0]
            named = ["--data", data] if verb == "score" else []
            found = watched([verb, "--run", str(run), *named, *flags.split()], folder / "log")
            record.add(shards=count, step=step, **found)
            print(count, step, json.dumps(found), flush=True)
        metrics = next(run.glob("scores/*/metrics.json"))
        assert json.loads(metrics.read_text())["num_examples"] == 2 * count


def main() -> None:
    """Measures each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 2000, 10_000])
    args, record = recorded(parser, "What a tiny shard costs the driver does not grow.")
    for count in args.shards:
        measure(count, record)


if __name__ == "__main__":
    main()
