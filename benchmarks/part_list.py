"""What it takes to know which parts of a score table are there: from their list, and from each.

    python benchmarks/part_list.py --parts 1000 10000 100000 --rounds 5

What `select` takes, of rows in so many parts (gathered at the end of scoring), stands beside the
same rows in 100 parts.

Parts are on this disk, of eight rows each. Footers are read for at most `--most-footers` parts:
the time is that of a thousand times as many files to open.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from recording import recorded

from raygrad.runs import part_list, score_table
from raygrad.runs.subsets import draw_subset

ROWS, FEW = 8, 100
PROVENANCE = {"network": "net", "columns": "loss"}


def make(folder: Path, count: int, rows_a_part: int = ROWS) -> None:
    """Makes a complete table of so many parts, and its list; its rows depend on their number."""
    score_table.write_part(str(folder), "first", table_of(0, rows_a_part), PROVENANCE, 1.0)
    first = Path(score_table.part_url(str(folder), "first"))
    said = pq.read_schema(first).metadata
    first.unlink()
    names = [f"{at:07d}" for at in range(count)]
    for at, name in enumerate(names):
        rows = table_of(at * rows_a_part, rows_a_part).replace_schema_metadata(said)
        pq.write_table(rows, score_table.part_url(str(folder), name))
    facts = score_table.part_facts(str(folder), names[0], PROVENANCE)
    assert facts is not None
    part_list.write_part_list(str(folder), PROVENANCE, dict.fromkeys(names, facts))
    score_table.write_manifest(str(folder), names, PROVENANCE, 1.0)


def table_of(first: int, number: int) -> pa.Table:
    """Returns rows with scores that no two share."""
    at = np.arange(first, first + number)
    scores = np.sin(at.astype(np.float64)) ** 2
    keys = [f"k{one:012d}" for one in at.tolist()]
    return pa.table({"key": keys, "shard": ["s"] * number, "loss": scores})


def select_seconds(folder: Path) -> tuple[float, float]:
    """Returns the wall and CPU seconds of drawing a tenth of the rows."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    out = folder / "subset.drawn"
    draw_subset(str(folder), str(out), "max_gradient", 0.1, 0, {}, score_column="loss")
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def compared(folder: Path, count: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Returns the seconds of `select` over the parts, and over the same rows in few, in turn."""
    few = folder / "few"
    few.mkdir()
    make(few, FEW, count * ROWS // FEW)
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    score_table.gather(str(folder))
    gathering = (time.perf_counter() - begun_s, time.process_time() - cpu_s)
    found: dict[str, list[tuple[float, float]]] = {"gather_s": [gathering]}
    for _ in range(rounds):
        found.setdefault("select_s", []).append(select_seconds(folder))
        found.setdefault("select_few_s", []).append(select_seconds(few))
    many, one = (pq.read_table(where / "subset.drawn") for where in (folder, few))
    assert many.equals(one), "what is drawn depends on the parts"
    return found


def seconds(folder: Path, count: int) -> tuple[float, float]:
    """Returns the wall and CPU seconds of one look at the parts."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    found = score_table.finished_parts(str(folder), PROVENANCE)
    assert len(found) == count
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def peak_so_far() -> float:
    """Returns the most memory that this process has had resident, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--most-footers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    args, record = recorded(parser, "Parts that are listed need not be asked.")
    for count in args.parts:
        with tempfile.TemporaryDirectory() as name:
            folder, listed, asked = Path(name), [], []
            make(folder, count)
            list_file, hidden = folder / part_list.PARTS, folder / ".hidden"
            for _ in range(args.rounds):
                listed.append(seconds(folder, count))
                if count <= args.most_footers:
                    list_file.rename(hidden)
                    asked.append(seconds(folder, count))
                    hidden.rename(list_file)
            peak_mib = peak_so_far()
            selected = compared(folder, count, args.rounds)
            record.add(
                parts=count, listed_s=listed, asked_s=asked, peak_mib=round(peak_mib), **selected,
                peak_after_select_mib=round(peak_so_far()),
            )  # fmt: skip
            print(count, "listed", listed, "asked", asked, f"peak {peak_mib:.0f} MiB", flush=True)
            print(count, selected, f"peak {peak_so_far():.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
