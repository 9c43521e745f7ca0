"""Claims: streaming whole shards costs no more than webdataset, and a subset is read by ranges.

Takes shards that exist (`raygrad prepare` writes some), on local disk or S3, and measures in one
process, alternating between what is compared:

* whole: all examples undecoded, through `read_rows` (checked against the index) and through a
  plain webdataset loop. Claim: at least 0.95 of webdataset's rate.
* subset: a share of the examples, through `read_rows` and by streaming and skipping. Claim, at 1%:
  at least 20 times fewer bytes, and faster.

webdataset reads S3 through `raygrad.storage.webdatasets`, so both sides use the same requests.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import webdataset
from recording import Record, recorded

from raygrad.data.index import Index, build_index
from raygrad.data.reading import read_rows
from raygrad.storage.ranges import cost_of, plan_ranges
from raygrad.storage.urls import expand
from raygrad.storage.webdatasets import register


def main() -> None:
    """Prints one line a claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="+", help="URLs of tars: braces, globs, lists")
    parser.add_argument("--labels", default="cls")
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=9)
    args, record = recorded(
        parser, "Whole shards cost what webdataset's loop costs; a subset is read by ranges."
    )
    register()
    urls = expand(args.shards)
    index = build_index(urls, [], val_fraction=0.0, labels=args.labels)
    rows = index.examples
    total = sum(index.shards["num_bytes"].to_pylist())
    print(f"{rows.num_rows} examples, {len(urls)} shards, {total / 1e6:.1f} MB")
    ours, theirs = alternate(
        args.repeats,
        lambda: sum(len(e.image) for e in read_rows(index, rows)),
        lambda: sum(map(image_bytes, plain(urls))),
    )
    report(record, "whole, against webdataset", ours, theirs, rows.num_rows)
    chosen = np.random.default_rng(0).permutation(rows.num_rows)
    subset = rows.take(np.sort(chosen[: max(1, round(args.share * rows.num_rows))]))
    keys = set(subset["key"].to_pylist())
    ours, theirs = alternate(
        args.repeats,
        lambda: sum(len(e.image) for e in read_rows(index, subset)),
        lambda: sum(image_bytes(one) for one in plain(urls) if one["__key__"] in keys),
    )
    name = f"{args.share:.1%}, against streaming and skipping"
    report(record, name, ours, theirs, subset.num_rows)
    moved = moved_bytes(index, subset)
    record.add(name=name, bytes_read=moved, bytes=total)
    print(f"  bytes: {moved} of {total}, {moved / total:.2%}; {total / moved:.0f} times fewer")


def plain(urls: list[str]) -> webdataset.WebDataset:
    """Returns a plain webdataset loop over shards, nothing decoded."""
    return webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)


def image_bytes(sample: dict[str, bytes]) -> int:
    """Returns the size of a webdataset sample's image."""
    return sum(len(v) for k, v in sample.items() if k[:2] != "__" and k not in ("cls", "json"))


def alternate(
    repeats: int, ours: Callable[[], int], theirs: Callable[[], int]
) -> tuple[list[float], list[float]]:
    """Times two ways that must give the same, in turn; the first turn only warms caches."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        results = []
        for seconds, call in zip(times, (ours, theirs), strict=True):
            start_s = time.perf_counter()
            results.append(call())
            if repeat:
                seconds.append(time.perf_counter() - start_s)
        assert results[0] == results[1], results
    return times


def report(
    record: Record, name: str, ours: list[float], theirs: list[float], num_examples: int
) -> None:
    """Prints and records the ratio of rates: the median of pairs, and its range."""
    record.add(name=name, examples=num_examples, ours_s=ours, theirs_s=theirs)
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} times its rate "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}, n={len(ratios)}); medians "
        f"{statistics.median(ours):.4f} s and {statistics.median(theirs):.4f} s "
        f"for {num_examples} examples"
    )


def moved_bytes(index: Index, rows) -> int:
    """Returns the bytes of all requests for these rows."""
    total = 0
    for name in rows["shard"].unique().to_pylist():
        part = rows.filter(np.array(rows["shard"].to_pylist()) == name).sort_by("offset")
        cost = cost_of(index.shard_url(name))
        total += plan_ranges(part["offset"].to_numpy(), part["size"].to_numpy(), cost).num_bytes
    return total


if __name__ == "__main__":
    main()
