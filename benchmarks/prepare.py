"""Claim: preparing a data set is hardly slower than writing its bytes with tarfile alone.

Opens a source, then alternates in one process between `write_shards` (reading or encoding images,
shuffling, headers, atomic files) and plain `tarfile` writing the very same members, which it has
in memory. Claim: at least 0.8 of tarfile's rate.
"""

import argparse
import io
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from raygrad.data.shards import WrittenShards, write_shards
from raygrad.data.sources import SOURCES


def main() -> None:
    """Prints the ratio of rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=sorted(SOURCES))
    parser.add_argument("--data-dir")
    parser.add_argument("--shard-bytes", type=int, default=16 * 2**20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    source = SOURCES[args.source](args.data_dir)
    count = len(source.train) + len(source.test)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.processes) as pool:
        map_fn: Callable[..., Iterable[Any]] = pool.map if args.processes > 1 else map

        def prepare(out: str) -> WrittenShards:
            return write_shards(
                source, args.source, out, shard_bytes=args.shard_bytes, seed=0, map_fn=map_fn
            )

        written = prepare(f"{folder}/first")
        content = [members(url) for url in (*written.train_urls, *written.test_urls)]
        ratios, ours, theirs = [], [], []
        for repeat in range(args.repeats):
            ours.append(timed(lambda: prepare(f"{folder}/ours"), f"{folder}/ours"))
            theirs.append(timed(lambda: write(content, f"{folder}/theirs"), f"{folder}/theirs"))
            ratios.append(theirs[repeat] / ours[repeat])
    num_bytes = sum(len(data) for shard in content for _, data in shard)
    print(
        f"{args.source}: {statistics.median(ratios):.2f} times tarfile's rate "
        f"({min(ratios):.2f} to {max(ratios):.2f}, n={len(ratios)}, {args.processes} processes); "
        f"{count} examples, {num_bytes / 1e6:.1f} MB in {len(content)} shards, medians "
        f"{statistics.median(ours):.3f} s and {statistics.median(theirs):.3f} s"
    )


def members(url: str) -> list[tuple[str, bytes]]:
    """Returns names and contents of a tar."""
    with tarfile.open(url) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar)
        return [(name, file.read()) for name, file in files if file]


def write(shards: list[list[tuple[str, bytes]]], folder: str) -> None:
    """Writes tars with tarfile, and waits for the disk as `write_shards` does."""
    os.makedirs(folder)
    for number, shard in enumerate(shards):
        with open(f"{folder}/{number:06d}.tar", "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for name, data in shard:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            stream.flush()
            os.fsync(stream.fileno())


def timed(call: Callable[[], Any], folder: str) -> float:
    """Returns the seconds of a call; what it wrote is removed."""
    start_s = time.perf_counter()
    call()
    seconds = time.perf_counter() - start_s
    shutil.rmtree(folder)
    return seconds


if __name__ == "__main__":
    main()
