"""Streaming shards with raygrad's checks against a plain webdataset loop on the same shards."""

import argparse
from pathlib import Path

import webdataset
from interleaved import print_rates, time_interleaved

from raygrad.data.index import build_index
from raygrad.data.streaming import epoch_batches


def main():
    """Prints examples/s of both, bytes only and decoded with the same decoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path, help="a folder of train-*.tar")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    urls = sorted(str(path) for path in args.shards.glob("train-*.tar"))
    index = build_index(urls, [], val_fraction=1e-9)
    count = index.rows("train").num_rows

    def plain():
        seen = 0
        dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        for batch in dataset.batched(args.batch_size, collation_fn=None):
            for sample in batch:
                assert sample["cls"]
                assert sample.get("jpg") or sample.get("png") or sample.get("jpeg")
                seen += 1
        assert seen == count

    def ours(seed=None):
        seen = 0
        for batch in epoch_batches(index, "train", batch_size=args.batch_size, seed=seed):
            for row, data in batch:
                assert row["label"] >= 0
                assert data
                seen += 1
        assert seen == count

    runs = {"plain webdataset": plain, "raygrad": ours, "raygrad, shuffled": lambda: ours(0)}
    print(f"\n{count} examples in {len(urls)} shards\n")
    print_rates(time_interleaved(runs, args.repeats), count, "examples", "plain webdataset")


if __name__ == "__main__":
    main()
