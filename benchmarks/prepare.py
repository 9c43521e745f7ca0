"""Preparing a data set against writing the same members with tarfile alone.

The baseline has every encoded image in memory already; raygrad reads files or encodes pixels.
"""

import argparse
import io
import shutil
import tarfile
import tempfile
from pathlib import Path

from interleaved import print_rates, time_interleaved
from recording import recorded

from raygrad.data.shards import write_shards
from raygrad.data.sources import SOURCES


def main():
    """Prints examples/s of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=sorted(SOURCES))
    parser.add_argument("--data-dir")
    parser.add_argument("--shard-bytes", type=int, default=32 * 2**20)
    parser.add_argument("--repeats", type=int, default=5)
    args, record = recorded(parser, "Preparing costs little more than tarfile alone.")
    source = SOURCES[args.source](args.data_dir)
    members = [
        (f"{one.key}.{one.extension}", one.image, str(one.label).encode(), one.key)
        for split in (source.train, source.test)
        for one in split
    ]
    folder = Path(tempfile.mkdtemp(prefix="prepare-"))

    def ours():
        shutil.rmtree(folder / "shards", ignore_errors=True)
        write_shards(
            source, args.source, str(folder / "shards"), shard_bytes=args.shard_bytes, seed=0
        )

    def baseline():
        number, tar = 0, None
        for name, image, label, key in members:
            if tar is None or tar.offset > args.shard_bytes:
                if tar is not None:
                    tar.close()
                tar = tarfile.open(folder / f"plain-{number}.tar", "w")  # noqa: SIM115
                number += 1
            for member_name, data in ((name, image), (f"{key}.cls", label)):
                member = tarfile.TarInfo(member_name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        tar.close()

    try:
        print(f"\n{len(members)} examples of {args.source}\n")
        seconds = time_interleaved({"tarfile alone": baseline, "raygrad": ours}, args.repeats)
        print_rates(seconds, len(members), "examples", "tarfile alone")
        record.add(source=args.source, examples=len(members), seconds=seconds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
