"""Keeps what was measured: a JSON beside the record's page, with all that it depends on.

    record = Record("Claim: ...", settings=vars(args))
    record.add(network="alexnet", way="raygrad", seconds=[...])   # every repetition, not its median
    record.write("benchmarks/records/2026-11-28-name.json")

Once `write` has named the file it is written anew after every `add`, so that a run that is cut
short keeps what it had. Pages and tables are made from it, and `readme_numbers.py` checks them.

A script that prints as it measures begins with `args = recorded(parser, "Claim")`, which adds the
flag `--record`, and gives every measurement to the record that comes back with them.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "torchvision", "ray", "numpy", "pyarrow", "timm", "pillow", "webdataset")


class Record:
    """The JSON of one benchmark.

    Args:
        claim: What is measured, in a sentence; a page may say no more than its rows show.
        settings: All that was chosen for the run, flags and defaults.
    """

    def __init__(self, claim: str, settings: Mapping[str, Any]) -> None:
        self._path: Path | None = None
        self.content: dict[str, Any] = {
            "claim": claim,
            "command": [Path(one).name if os.path.isabs(one) else one for one in sys.argv],
            "settings": {name: plain(value) for name, value in settings.items()},
            "machine": machine(),
            "source": source(),
            "rows": [],
        }

    def add(self, **row: Any) -> None:
        """Adds one row; a list holds every repetition."""
        self.content["rows"].append({name: plain(value) for name, value in row.items()})
        if self._path is not None:
            self.write(self._path)

    def add_table(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows of a table that also stands beside the record as a CSV, under its name."""
        self.content["rows"] += [{"table": name, **plain(row)} for row in rows]

    def write(self, path: str | Path) -> None:
        """Writes the record, whole or not at all."""
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(unfinished, self._path)


def recorded(
    parser: argparse.ArgumentParser, claim: str, argv: list[str] | None = None
) -> tuple[argparse.Namespace, Record]:
    """Returns the parsed flags and the record that they open.

    It is written beside the pages, named after day and script, unless `--record` says where.
    """
    script = Path(sys.argv[0]).stem.replace("_", "-")
    name = f"{datetime.now(UTC):%Y-%m-%d}-{script}.json"
    parser.add_argument("--record", type=Path, default=ROOT / "benchmarks" / "records" / name)
    args = parser.parse_args(argv)
    kept = {name: value for name, value in vars(args).items() if not callable(value)}
    record = Record(claim, kept)
    record.write(args.record)
    return args, record


def machine() -> dict[str, Any]:
    """Returns what a figure depends on beside the code: processor, threads, load, versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": [round(one, 2) for one in os.getloadavg()],
        "gpu": _gpu(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def source() -> dict[str, Any]:
    """Returns which code ran: commit, whether it was changed since, and a digest of raygrad/."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted((ROOT / "raygrad").rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", "raygrad", "benchmarks")),
        "digest": digest.hexdigest(),
    }


def plain(value: Any) -> Any:
    """Returns a value as JSON holds it: numbers of numpy and torch as Python's, paths as names.

    A number that is none is null, an infinite one its name: JSON has neither.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Path) or (isinstance(value, str) and os.path.isabs(value)):
        return Path(value).name
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _processor() -> str:
    found = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
    return found or platform.processor()


def _gpu() -> str | None:
    # Without torch there is no figure of a GPU either; a benchmark that uses one has imported it.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
