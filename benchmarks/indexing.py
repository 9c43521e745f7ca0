"""Claim: reading the headers and labels of shards takes no more CPU time than in another checkout.

    python benchmarks/indexing.py BEFORE --repeats 11 --record benchmarks/records/NAME.json

BEFORE is a checkout of the version that is compared with. Both are loaded into one process and
take turns; CPU time of one thread is fair on a machine that others use as well. The index and the
decoded images of both must be equal.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.interleaved import print_rates, time_interleaved
from benchmarks.recording import Record
from tests.data.making import jpeg, tar


def load(checkout: str, name: str) -> ModuleType:
    """Returns a module of raygrad as a checkout has it, beside those already loaded."""
    for loaded in [one for one in sys.modules if one.split(".")[0] == "raygrad"]:
        del sys.modules[loaded]
    sys.path.insert(0, checkout)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def write_tars(folder: Path, num_tars: int, num_examples: int) -> list[str]:
    """Writes tars of small JPEGs with labels; returns their paths."""
    urls = []
    for shard in range(num_tars):
        members = []
        for at in range(num_examples):
            key = f"n01440764_{shard}_{at}"
            members += [
                (f"{key}.JPEG", jpeg(at % 50, (64, 64))),
                (f"{key}.cls", b"%d" % (at % 10)),
            ]
        path = folder / f"train-{shard}.tar"
        path.write_bytes(tar(members))
        urls.append(str(path))
    return urls


def main() -> None:
    """Times both checkouts in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before")
    parser.add_argument("--tars", type=int, default=2)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--record")
    args = parser.parse_args()
    here = str(Path(__file__).parent.parent)
    versions = {}
    for name, checkout in (("before", args.before), ("now", here)):
        index = load(checkout, "raygrad.data.index")
        arrays = importlib.import_module("raygrad.data.arrays")
        versions[name] = index, arrays
    settings = {**vars(args), "before": Path(args.before).name}
    record = Record("Indexing and decoding take no more CPU time than before.", settings)
    with tempfile.TemporaryDirectory() as folder:
        urls = write_tars(Path(folder), args.tars, args.examples)
        built = {n: one.build_index(urls, [], val_fraction=0.1) for n, (one, _) in versions.items()}
        assert built["before"].examples.equals(built["now"].examples)
        loaded = {n: versions[n][1].load_arrays(built[n], "train", channels=3) for n in versions}
        assert np.array_equal(loaded["before"].images, loaded["now"].images)
        work = {
            "index": {
                n: lambda one=one: one.build_index(urls, [], val_fraction=0.1)
                for n, (one, _) in versions.items()
            },
            "read and decode": {
                n: lambda n=n: versions[n][1].load_arrays(built[n], "train", channels=3)
                for n in versions
            },
        }
        for what, alternatives in work.items():
            seconds = time_interleaved(alternatives, args.repeats, time.process_time)
            print(f"\n{what}\n")
            print_rates(seconds, args.tars * args.examples, "examples", "before")
            pairs = zip(seconds["before"], seconds["now"], strict=True)
            ratios = [now / before for before, now in pairs]
            record.add(
                what=what,
                n=args.repeats,
                before_s=seconds["before"],
                now_s=seconds["now"],
                ratio_median=statistics.median(ratios),
                ratio_range=[min(ratios), max(ratios)],
                ratio_of_fastest=min(seconds["now"]) / min(seconds["before"]),
            )
    if args.record:
        record.write(args.record)


if __name__ == "__main__":
    main()
