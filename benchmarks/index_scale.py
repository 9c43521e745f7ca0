"""An index of very many rows: built, gone on with, read, split and digested, and the memory of it.

    python benchmarks/index_scale.py --rows 1000000 10000000 100000000 --folder /fast/disk

Shards are synthetic: what the scan of a tar would find is made up, and all that follows is what
`raygrad index` does in its driver, with parts on this disk. Each size is a process of its own, so
that its peak of resident memory is its own. Here that process also makes up the rows and writes the
parts, as workers do otherwise, so that its CPU time is the sum of all.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from recording import recorded

from raygrad.data import index_parts
from raygrad.data.index import build_index_files
from raygrad.data.index_building import Head, IndexOptions
from raygrad.data.shard_rows import shard_facts
from raygrad.data.shard_scan import SCAN_SCHEMA, ShardScan
from raygrad.data.stored_index import StoredIndex

BYTES = 100_000
"""Of one made-up image."""


def main() -> None:
    """Measures each size in turn, or, started by itself, one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--repeat-keys", action="store_true", help="keys counted anew in each")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--one", type=int, help="this size, in this process")
    if "--one" in sys.argv:
        args = parser.parse_args()
        print(json.dumps(measured(args.folder, args.one, args)))
        return
    args, record = recorded(parser, "An index grows by eight bytes a row in memory, and no object.")
    for rows in args.rows:
        folder = args.folder / f"index-scale-{rows}"
        folder.mkdir(parents=True)
        more = ["--repeat-keys"] if args.repeat_keys else []
        ran = subprocess.run(
            [sys.executable, __file__, "--one", str(rows), "--folder", str(folder),
             "--per-shard", str(args.per_shard), *more],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        row = json.loads(ran.stdout.splitlines()[-1])
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        record.add(rows=rows, **row, disk_bytes=size)
        print(rows, row, size, flush=True)
        shutil.rmtree(folder)


def measured(folder: Path, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """Returns wall and CPU seconds of each step, and the peak of memory after it."""
    urls = [str(folder / f"shard-{at:06d}.tar") for at in range(-(-rows // args.per_shard))]
    for url in urls:
        Path(url).touch()
    made = 0

    def scan(url: str, *_: object) -> ShardScan:
        nonlocal made
        made += 1
        return made_up(int(url[-10:-4]), rows, args.per_shard, anew=args.repeat_keys)

    index_parts.scan_shard = scan
    data, options, found = str(folder / "data"), IndexOptions(0.1), {}

    def build() -> Head:
        return build_index_files(data, urls, [], options, lambda head: head)

    def split() -> int:
        with StoredIndex(data) as index:
            return sum(counts.total() for counts in index.labels().values())

    def digest() -> str:
        with StoredIndex(data) as index:
            return index.digest()

    found["start"] = {"peak_mib": peak_mib()}
    found["build"], head = timed(build)
    assert (head.num_examples, made) == (rows, len(urls))
    found["build again"], _ = timed(build)
    assert made == len(urls), "a shard was scanned twice"
    found["read"], facts = timed(lambda: shard_facts(data, "train"))
    assert len(facts) == len(urls)
    found["split"], num = timed(split)
    assert num == rows
    found["digest"], _ = timed(digest)
    return found


def made_up(shard: int, rows: int, per_shard: int, *, anew: bool) -> ShardScan:
    """Returns what the scan of a shard of 1,000 classes might have found."""
    first = shard * per_shard
    number = min(per_shard, rows - first)
    at = np.arange(number)
    digits = pc.utf8_lpad(pc.cast(pa.array(at if anew else at + first), pa.string()), 12, "0")
    examples = pa.table(
        {
            "key": pc.binary_join_element_wise("img", digits, "_"),
            "offset": at * BYTES + 512,
            "size": np.full(number, BYTES),
            "label": pc.cast(pa.array((at + first) * 7919 % 1000), pa.string()),
        },
        SCAN_SCHEMA,
    )
    return ShardScan(examples, [], number * BYTES, f"{shard:032x}", None)


def timed(call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Returns the seconds of a call, the peak of memory after it, and what it returned."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    result = call()
    return {
        "wall_s": round(time.perf_counter() - wall_s, 2),
        "cpu_s": round(time.process_time() - cpu_s, 2),
        "peak_mib": peak_mib(),
    }, result


def peak_mib() -> int:
    """Returns the most memory that this process has had resident."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
