"""What it takes to know which parts of a score table are there: from their list, and from each.

    python benchmarks/part_list.py --parts 1000 10000 100000 --rounds 5

What `select` takes, of rows in so many parts (gathered at the end of scoring), stands beside the
same rows in 100 parts.

Parts are on this disk, of eight rows each. Footers are read for at most `--most-footers` parts:
the time is that of a thousand times as many files to open. Tables are made by another process, and
each thing is measured in a process of its own, so that its peak of resident memory is its own.
"""

import argparse
import functools
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

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


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Returns the wall and CPU seconds of a call."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def known(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Returns what looking at the parts takes, as scoring that goes on does first."""
    found = {}

    def look() -> None:
        found["parts"] = score_table.finished_parts(str(folder), PROVENANCE)

    seconds = [timed(look) for _ in range(rounds)]
    assert len(found["parts"]) == count
    return {"s": seconds, "peak_mib": peak_mib()}


def gathered(folder: Path) -> dict[str, Any]:
    """Returns what gathering the rows takes, as the end of scoring does."""
    return {"s": [timed(lambda: score_table.gather(str(folder)))], "peak_mib": peak_mib()}


def draw(folder: Path) -> None:
    """Draws a tenth of the rows."""
    out = str(folder / "subset.drawn")
    draw_subset(str(folder), out, "max_gradient", 0.1, 0, {}, score_column="loss")


def drawn(folders: list[Path], rounds: int) -> dict[str, Any]:
    """Returns what drawing a tenth of the rows takes in each folder, in turn."""
    seconds: dict[str, list[tuple[float, float]]] = {folder.name: [] for folder in folders}
    for _ in range(rounds):
        for folder in folders:
            seconds[folder.name].append(timed(functools.partial(draw, folder)))
    return {"s": seconds, "peak_mib": peak_mib()}


def peak_mib() -> int:
    """Returns the most memory that this process has had resident."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def apart(call: Callable[..., Any], *given: Any) -> Any:
    """Returns what a call returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *given).result()


def measure(folder: Path, count: int, args: argparse.Namespace) -> dict[str, Any]:
    """Returns what is measured of so many parts, by its name."""
    many, few = folder / "many", folder / "few"
    for where, parts in ((many, count), (few, FEW)):
        where.mkdir()
        apart(make, where, parts, count * ROWS // parts)
    row = {"nothing": apart(peak_mib), "listed": apart(known, many, count, args.rounds)}
    if count <= args.most_footers:
        list_file, hidden = many / part_list.PARTS, many / ".hidden"
        list_file.rename(hidden)
        row["asked"] = apart(known, many, count, args.rounds)
        hidden.rename(list_file)
    row["gather"] = apart(gathered, many)
    row["select"] = apart(drawn, [many, few], args.rounds)
    row["select many"] = apart(drawn, [many], 1)
    drawn_of = [pq.read_table(where / "subset.drawn") for where in (many, few)]
    assert drawn_of[0].equals(drawn_of[1]), "what is drawn depends on the parts"
    return row


def main() -> None:
    """Measures each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--most-footers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    args, record = recorded(parser, "Parts that are listed need not be asked.")
    for count in args.parts:
        with tempfile.TemporaryDirectory() as name:
            found = measure(Path(name), count, args)
        record.add(parts=count, **found)
        print(count, found, flush=True)


if __name__ == "__main__":
    main()
