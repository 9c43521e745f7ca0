"""What serves very many shards best: a job that knows its parts, or Ray Data's own checkpoints.

    python benchmarks/job_checkpoints.py --shards 1000 5000 --rounds 3

Two Ray Data jobs with the same actor, which writes a part a shard and gives a status row back:

parts        as raygrad does: rows from items, statuses iterated by the driver, parts listed at the
             end; gone on with by that list.
checkpoints  rows from `ray.data.range` (Ray Data keeps checkpoints only of what is read and then
             written), statuses written by `write_parquet`, with `DataContext.checkpoint_config`
             keeping the ids of what was written; gone on with by Ray Data's filter of ids, with
             all of them there.

Each with a shard a block, and with 32. CPU seconds of the driver's process, in turn in one Ray, and
how many files a job leaves. The actor computes nothing, so that only the job
is left. The board that tells faults apart, which either way would need, is left out of both.
"""

import argparse
import functools
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import ray  # noqa: E402
import ray.data  # noqa: E402
from ray.data.checkpoint import CheckpointConfig  # noqa: E402

from benchmarks.recording import Record, recorded  # noqa: E402
from raygrad.runs import part_list, score_table  # noqa: E402

PROVENANCE = {"network": "none", "columns": "loss"}
ROWS = 2


class Scorer:
    """An actor that writes a part for each shard of its block, and computes nothing.

    Args:
        folder: Where the parts go.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns a status row for each shard."""
        for shard in map(name_of, batch["id"]):
            keys = [f"{shard}-{at}" for at in range(ROWS)]
            rows = pa.table({"key": keys, "shard": [shard] * ROWS, "loss": np.zeros(ROWS)})
            score_table.write_part(self._folder, shard, rows, PROVENANCE, 1.0)
        return {"id": batch["id"], "used": np.full(len(batch["id"]), ROWS)}


def name_of(number: int) -> str:
    """Returns the name of a shard."""
    return f"s{number:07}"


def mapped(rows: Any, folder: Path, each: int) -> Any:
    """Returns the job over shards, with actors as scoring has them."""
    return rows.map_batches(
        Scorer,
        fn_constructor_args=(str(folder / "parts"),),
        batch_size=each,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=1,
            max_tasks_in_flight_per_actor=2,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
        num_cpus=0.5,
    )


def by_parts(folder: Path, count: int, each: int) -> int:
    """Runs the job as raygrad does, over the shards that have no part; returns how many it ran."""
    parts = str(folder / "parts")
    there = score_table.finished_parts(parts, PROVENANCE)
    todo = [number for number in range(count) if name_of(number) not in there]
    if todo:
        rows = ray.data.from_items(
            [{"id": number} for number in todo], override_num_blocks=-(-len(todo) // each)
        )
        done = [name_of(row["id"]) for row in mapped(rows, folder, each).iter_rows()]
        facts = score_table.part_facts(parts, done[0], PROVENANCE)
        assert facts is not None
        part_list.write_part_list(parts, PROVENANCE, dict.fromkeys(done, facts))
    return len(todo)


def by_checkpoints(folder: Path, count: int, each: int) -> int:
    """Runs the job with Ray Data's checkpoints; returns how many shards had no part."""
    before = num_files(folder / "parts")
    context = ray.data.DataContext.get_current().copy()
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=str(folder / "ids"),
        delete_checkpoint_on_success=False,
    )
    with ray.data.DataContext.current(context):
        rows = ray.data.range(count, override_num_blocks=-(-count // each))
        mapped(rows, folder, each).write_parquet(str(folder / "statuses"))
    return num_files(folder / "parts") - before


WAYS: dict[str, Callable[[Path, int, int], int]] = {
    "parts": by_parts,
    "checkpoints": by_checkpoints,
}


def num_files(folder: Path) -> int:
    """Returns how many files there are below a folder."""
    return sum(one.is_file() for one in folder.rglob("*")) if folder.exists() else 0


def spent(call: Callable[[], object]) -> dict[str, float]:
    """Returns the wall seconds of a call, and the CPU seconds of this process."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    call()
    return {"wall_s": time.perf_counter() - wall_s, "driver_s": time.process_time() - cpu_s}


def measure(count: int, each: int, rounds: int, record: Record) -> None:
    """Measures both ways, in turn, first all shards and then with all of them there."""
    for _ in range(rounds):
        for way, run in WAYS.items():
            with tempfile.TemporaryDirectory(prefix="job-checkpoints-") as name:
                folder, did = Path(name), []
                (folder / "parts").mkdir()
                call = functools.partial(_noted, did, run, folder, count, each)
                first, again = spent(call), spent(call)
                assert num_files(folder / "parts") == count + (way == "parts"), way
                files = num_files(folder)
            row = {"way": way, "shards": count, "shards_a_block": each, "did": did}
            record.add(**row, first=first, again=again, files=files)
            print(row, first, again, files, flush=True)


def _noted(did: list[int], run: Callable[..., int], *given: Any) -> None:
    did.append(run(*given))


def main(argv: Iterable[str] | None = None) -> None:
    """Measures each size with each number of shards a block."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--each", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=3)
    args, record = recorded(
        parser,
        "A list of parts costs a job's driver no more than Ray Data's checkpoints.",
        list(argv) if argv is not None else None,
    )
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    measure(32, 32, 1, Record("warm", {}))  # what is imported and started once
    for count in args.shards:
        for each in args.each:
            measure(count, each, args.rounds, record)


if __name__ == "__main__":
    main()
