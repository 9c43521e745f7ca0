"""A small subset read by range against streaming every shard and skipping the rest.

On local disk, or on S3 where the shards' URL says so.
"""

import argparse

import numpy as np
import pyarrow as pa
from interleaved import print_rates, time_interleaved

from raygrad.data import storage
from raygrad.data.index import build_index
from raygrad.data.range_reads import LOCAL, S3, plan_ranges, read_rows


def main():
    """Prints bytes moved and time of both ways for a share of the examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="a folder of train-*.tar, local or s3://")
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    urls = [u for u in storage.list_files(args.shards, ".tar") if "/train-" in u]
    index = build_index(urls, [], val_fraction=1e-9)
    everything = index.rows("train")
    chosen = np.random.default_rng(0).permutation(everything.num_rows)
    rows = everything.take(pa.array(np.sort(chosen[: max(1, int(args.share * len(chosen)))])))
    keys = set(rows["key"].to_pylist())

    def by_range():
        assert sum(1 for _ in read_rows(index, rows)) == len(keys)

    def streaming():
        assert sum(row["key"] in keys for row, _ in read_rows(index, everything)) == len(keys)

    cost = S3 if storage.is_s3(args.shards) else LOCAL
    moved = 0
    for name in set(rows["shard"].to_pylist()):
        mine = rows.filter(pa.compute.equal(rows["shard"], name))
        ranges = plan_ranges(mine["offset"].to_numpy(), mine["size"].to_numpy(), cost)
        moved += sum(one.end - one.begin for one in ranges)
    total = sum(index.shards["num_bytes"].to_pylist())
    print(f"\n{len(keys)} of {everything.num_rows} examples in {len(urls)} shards")
    print(
        f"bytes by range {moved:,} of {total:,}: {moved / total:.3%}, "
        f"{total / moved:.0f} times fewer\n"
    )
    seconds = time_interleaved(
        {"streaming and skipping": streaming, "by range": by_range}, args.repeats
    )
    print_rates(seconds, len(keys), "examples", "streaming and skipping")


if __name__ == "__main__":
    main()
