"""CPU seconds of `raygrad --help` and of importing what a user imports, of one tree or of several.

    python benchmarks/start_up.py --trees now=. before=../before --out start-up.json

Trees are taken in turn, so that what else the machine does meets them alike; CPU time, not wall
time. A tree is a checkout; all run on the environment of this interpreter.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from recording import Record

COMMANDS = {
    "raygrad --help": "from raygrad.cli import main; main(['--help'])",
    "import raygrad.scoring": "import raygrad.scoring",
    "import torch": "import torch",
}


def main() -> None:
    """Measures every command of every tree, and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", nargs="+", default=["now=."])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", default="start-up.json")
    args = parser.parse_args()
    trees = dict(tree.split("=", 1) for tree in args.trees)
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.repeats):
        for command, code in COMMANDS.items():
            for name, path in trees.items():
                found.setdefault((command, name), []).append(cpu_s(code, Path(path).resolve()))
    settings = {"trees": list(trees), "repeats": args.repeats}
    record = Record("raygrad --help takes at most a second of CPU", settings)
    for (command, name), times in found.items():
        record.add(command=command, tree=name, cpu_s=[round(one, 3) for one in times])
        print(f"{command:24} {name:8} {statistics.median(times):6.2f} s ({max(times):.2f} at most)")
    record.write(args.out)


def cpu_s(code: str, tree: Path) -> float:
    """Returns the CPU seconds, of user and system, that a fresh interpreter takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
