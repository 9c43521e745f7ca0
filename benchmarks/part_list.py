"""What it takes to know which parts of a score table are there: from their list, and from each.

    python benchmarks/part_list.py --parts 1000 10000 100000 --rounds 5

Parts are links to one small part on this disk. Footers are read for at most `--most-footers` parts:
the time is that of a thousand times as many files to open.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from recording import recorded

from raygrad.runs import part_list, score_table

PROVENANCE = {"network": "net", "columns": "loss"}


def make(folder: Path, count: int) -> None:
    """Makes a table of so many parts, and its list."""
    rows = pa.table({"key": [f"k{at}" for at in range(8)], "loss": [0.5] * 8})
    score_table.write_part(str(folder), "0000000", rows, PROVENANCE, 1.0, rows_digest="d" * 32)
    first = Path(score_table.part_url(str(folder), "0000000"))
    for at in range(1, count):
        os.link(first, score_table.part_url(str(folder), f"{at:07d}"))
    facts = score_table.part_facts(str(folder), "0000000", PROVENANCE)
    assert facts is not None
    part_list.write_part_list(str(folder), PROVENANCE, {f"{at:07d}": facts for at in range(count)})


def seconds(folder: Path, count: int) -> tuple[float, float]:
    """Returns the wall and CPU seconds of one look at the parts."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    found = score_table.finished_parts(str(folder), PROVENANCE)
    assert len(found) == count
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


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
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            record.add(parts=count, listed_s=listed, asked_s=asked, peak_mib=round(peak_mib))
            print(count, "listed", listed, "asked", asked, f"peak {peak_mib:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
