"""Drawing 10% of many synthetic rows out of core: time and memory, beside DuckDB's top 10%.

Each measurement is a process of its own, so that its peak of resident memory is its own; the
measurements of a size are interleaved. DuckDB is needed for its column only.

    python benchmarks/select_rows.py --folder /fast/disk --sizes 1000000 10000000 --repeats 3
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from recording import recorded

ROWS_A_PART = 5_000_000
SYSTEMS = ("max_gradient", "duckdb", "gradient_cdf", "ccs by class")


def generate(folder: Path, size: int) -> None:
    """Writes parts of 1,000 classes with scores as gradient norms have them: log-normal."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part, start in enumerate(range(0, size, ROWS_A_PART)):
        number, rng = min(ROWS_A_PART, size - start), np.random.default_rng(part)
        names = pc.utf8_lpad(pc.cast(pa.array(np.arange(start, start + number)), pa.string()), 12)
        shards = pa.array([f"train-{part * 100 + at:06d}" for at in range(100)])
        of = pa.array((np.arange(number) * 100 // number).astype(np.int32))
        table = pa.table(
            {
                "key": pc.binary_join_element_wise("img", names, "_"),
                "shard": pa.DictionaryArray.from_arrays(of, shards),
                "label": rng.integers(0, 1000, number),
                # Stands for the index's hash of the key: 64 even bits.
                "key_hash": rng.integers(0, 2**64, number, dtype=np.uint64),
                "score": rng.lognormal(-3.0, 2.0, number).astype(np.float32),
            }
        )
        pq.write_table(table, folder / f"part-{part:04d}.parquet", row_group_size=2**19)


def measure(system: str, folder: Path, threads: int) -> None:
    """Draws 10% into a file and prints wall and CPU seconds (all threads) and the peak as JSON.

    All read the same parts and write Parquet (snappy) with key and shard of the same rows in the
    order of their scores; ours writes weight and rank besides, and refuses NaN.
    """
    parts = sorted(str(path) for path in folder.glob("part-*.parquet"))
    total = sum(pq.read_metadata(part).num_rows for part in parts)
    sink = str(folder / "subset.out")
    start = time.perf_counter()
    if system == "duckdb":
        import duckdb

        connection = duckdb.connect()
        # Twice what our draws may take; what does not fit goes to the same disk.
        connection.execute(
            f"SET threads = {threads}; SET memory_limit = '4GB'; "
            f"SET temp_directory = '{folder}/duckdb'"
        )
        connection.execute(
            f"COPY (SELECT key, shard FROM read_parquet('{folder}/part-*.parquet') "
            f"ORDER BY score DESC LIMIT {total // 10}) TO '{sink}' (FORMAT parquet)"
        )
    else:
        from raygrad.selection.out_of_core import draw_parts

        draw_parts(
            system.split()[0], parts, sink, total // 10, scratch=str(folder),
            num_threads=threads, class_balanced="by class" in system,
        )  # fmt: skip
    elapsed, cpu = time.perf_counter() - start, time.process_time()
    assert pq.read_metadata(sink).num_rows == total // 10
    # Not getrusage: its peak is inherited from the process that started this one.
    (line,) = (x for x in Path("/proc/self/status").read_text().split("\n") if "VmHWM" in x)
    peak = int(line.split()[1]) * 1024
    found = {"system": system, "rows": total, "time_s": round(elapsed, 2), "cpu_s": round(cpu, 2)}
    print(json.dumps({**found, "peak_mib": peak >> 20}))


def main() -> None:
    """Measures every system on every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, help="holds the parts while it runs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="leave parts, and use what is there")
    parser.add_argument("--generate-only", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    if "--measure" in sys.argv:
        args = parser.parse_args()
        measure(args.measure, Path(args.folder), args.threads)
        return
    args, record = recorded(parser, "Drawing a tenth of many rows out of core.")
    for size in args.sizes:
        folder = Path(args.folder) / f"rows-{size}"
        if not (args.keep and folder.exists()):
            generate(folder, size)
        for _ in range(0 if args.generate_only else args.repeats):
            for system in args.systems:
                command = [sys.executable, __file__, "--folder", str(folder)]
                command += ["--measure", system, "--threads", str(args.threads)]
                found = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, check=True)
                print(found.stdout.decode().strip(), flush=True)
                record.add(rows=size, system=system, **json.loads(found.stdout))
        if not args.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
