"""Interrupts a whole study at random moments and goes on with the same command each time.

    python benchmarks/interruptions.py --out benchmarks/records/interruptions.json --state /tmp/i

Each row is kept when it is there; the same command goes on, `--piece-s` seconds at a time.

A study of the digits runs once undisturbed. Then the same study, in a folder of its own, is begun
again and again: each start is sent SIGINT or SIGTERM after a random part of the time that the
undisturbed one took, until it ends before its moment comes; its tables must then be those of the
undisturbed study, bit for bit but for times. Measured of every interruption: the exit status, how
long the command took to end, and how long until no process of it was left.

Processes are found as descendants of this one, which adopts orphans (Linux,
PR_SET_CHILD_SUBREAPER), so that none is missed whatever session or environment it has. This script
itself must not be started with SIGINT ignored, as a shell does with what it puts into the
background.
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fault_processes import PR_SET_CHILD_SUBREAPER, bury, living
from recording import ROOT, Record

STUDY = (
    "--data.shard-bytes 400000 --train.network linear --train.epochs 3 --train.lr-decay-epochs 2 "
    "--train.batch-size 32 --train.dynamics --select.methods random gradient_cdf "
    "--select.keep-fractions 0.1 --select.seeds 0"
)
TIMES = {"train_time_s", "loop_time_s", "epoch_time_s", "score_time_s", "time_s"}
OF_FILES = {"bytes", "version"}
"""Of the list of parts: parts hold their times, which compress to other sizes."""
ENDS_S = 15.0
"""How long a command may take to end, and all its processes after it."""


def main() -> None:
    """Goes on with the undisturbed study, then with interrupted ones, until there are enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="interruptions.json")
    parser.add_argument("--state", default="interruptions", help="folder of studies and state")
    parser.add_argument("--interruptions", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latest", type=float, default=0.6, help="of the whole time")
    parser.add_argument("--piece-s", type=float, default=2400.0, help="no new start after")
    args = parser.parse_args()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN, "start it in the foreground"
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begun_s, folder = time.monotonic(), Path(args.state)
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(
        "An interrupted study goes on with the same command to the same tables",
        {**vars(args), "study": STUDY, "ends_s": ENDS_S},
    )
    record.content["rows"] = rows = earlier_rows(args.out)
    record.write(args.out)
    if not rows:
        whole = finish(start(folder / "undisturbed"))
        assert whole["status"] == 0, whole
        record.add(kind="undisturbed", tables=len(tables(folder / "undisturbed")), **whole)
    while (found := following(rows, args)) is not None:
        study, number, after_s = found
        left_s = args.piece_s - (time.monotonic() - begun_s)
        if left_s < min(after_s, 1.5 * rows[0]["took_s"]) + ENDS_S:
            print(f"{sum(row['kind'] == 'interruption' for row in rows)} interruptions so far")
            return
        record.add(**one_start(folder, study, number, after_s))
    sys.exit(summary(rows))


def earlier_rows(out: str) -> list[dict[str, Any]]:
    """Returns the rows of earlier pieces of the same measurement."""
    return json.loads(Path(out).read_text())["rows"] if Path(out).exists() else []


def following(
    rows: list[dict[str, Any]], args: argparse.Namespace
) -> tuple[int, signal.Signals | None, float] | None:
    """Returns the next start: its study, the signal that is sent and when; None at the end.

    Once there are enough interruptions, the last study is left to its end.
    """
    study = sum(row["kind"] == "study" for row in rows)
    hits = sum(row["kind"] == "interruption" for row in rows)
    if hits >= args.interruptions:
        is_ended = rows[-1]["kind"] == "study"
        return None if is_ended else (study, None, float("inf"))
    draw = random.Random(f"{args.seed}/{len(rows)}")
    after_s = draw.uniform(0.5, args.latest * rows[0]["took_s"])
    return study, draw.choice((signal.SIGINT, signal.SIGTERM)), after_s


def one_start(
    folder: Path, study: int, number: signal.Signals | None, after_s: float
) -> dict[str, Any]:
    """Starts a study and interrupts it, unless it ends before; returns the row of it."""
    run = folder / f"study-{study}"
    process, load = start(run), os.getloadavg()[0]
    try:
        process.wait(None if number is None else after_s)
    except subprocess.TimeoutExpired:
        assert number is not None
        during = stages(run)
        process.send_signal(number)
        found = finish(process)
        right = 128 + number
        slowest_s = max(found["took_s"], found["processes_gone_s"])
        is_right = found["status"] == right and not found["processes_left"]
        return {
            "kind": "interruption", "study": study, "signal": number.name, "after_s": after_s,
            "during": during, "load": load, "wanted_status": right, **found,
            "as_wanted": is_right and slowest_s <= ENDS_S,
        }  # fmt: skip
    ended = finish(process)
    same = ended["status"] == 0 and tables(run) == tables(folder / "undisturbed")
    if same:
        shutil.rmtree(run)
    return {"kind": "study", "study": study, "same_tables": same, **ended}


def start(run: Path) -> "subprocess.Popen[bytes]":
    """Starts the study in a folder; what it says goes to a file beside it."""
    command = [sys.executable, "-m", "raygrad", "run", "--run", str(run), *STUDY.split()]
    with open(run.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def finish(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Waits for the command, then for all its processes; returns the status and the seconds.

    The status is the one that a shell gives: 130 also for a process that SIGINT ended.
    """
    begun_s = time.monotonic()
    status = process.wait()
    status = 128 - status if status < 0 else status
    took_s = time.monotonic() - begun_s
    begun_s = time.monotonic()
    while (left := descendants()) and time.monotonic() - begun_s < 4 * ENDS_S:
        time.sleep(0.1)
    gone_s = time.monotonic() - begun_s
    return {
        "status": status,
        "took_s": round(took_s, 2),
        "processes_gone_s": round(gone_s, 2),
        "processes_left": len(left),
    }


def descendants() -> list[int]:
    """Returns the living processes below this one, and buries the dead that it has adopted."""
    bury(())
    return list(living(()))


def stages(run: Path) -> list[str]:
    """Returns which stages are complete, how many trials are finished, and the last line said."""
    names = sorted(path.stem for path in (run / "stages").rglob("*.json"))
    trials = len(list((run / "sweep" / "trials").glob("*.json")))
    said = run.with_suffix(".log").read_text(errors="replace").strip().splitlines()
    return [*names, *([f"{trials} trials"] if trials else []), *said[-1:]]


def tables(run: Path) -> dict[str, object]:
    """Returns all that a study leaves and that no clock decides, by file."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if name.startswith(("journal", "report", "config.json", "logs")) or path.is_dir():
            continue
        if name.startswith("data/index-parts"):  # named by the times of the run's own shards
            continue
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            left_out = TIMES | (OF_FILES if path.name == "_parts.parquet" else set())
            kept = [column for column in table.column_names if column not in left_out]
            found[name] = _plain(table.select(kept))
        elif name.startswith("sweep/trials/") or (path.name == "metrics.json" and "train" in name):
            found[name] = _without_times(json.loads(path.read_text()))
        elif path.suffix in (".tar", ".pt"):
            found[name] = path.read_bytes()
    assert found, f"no table in {run}"
    return found


def _plain(table: pa.Table) -> tuple[object, ...]:
    # NaN is equal to NaN here: bits are compared, not numbers.
    return tuple((name, repr(table[name].to_pylist())) for name in table.column_names)


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_times(one) for name, one in value.items() if name not in TIMES}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def summary(rows: list[dict[str, Any]]) -> int:
    """Prints what came out; returns 0 if all of it was as wanted."""
    hits = [row for row in rows if row["kind"] == "interruption"]
    studies = [row for row in rows if row["kind"] == "study"]
    wanted, same = (
        sum(bool(r["as_wanted"]) for r in hits),
        sum(bool(r["same_tables"]) for r in studies),
    )
    print(f"{wanted} of {len(hits)} interruptions as wanted, {same} of {len(studies)} studies same")
    for name in ("took_s", "processes_gone_s"):
        values = sorted(float(str(row[name])) for row in hits)
        print(f"{name}: median {values[len(values) // 2]:.1f}, most {values[-1]:.1f}")
    return 0 if wanted == len(hits) and same == len(studies) else 1


if __name__ == "__main__":
    main()
