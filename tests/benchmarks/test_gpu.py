"""The script for a GPU is known to work before it meets one: on a CPU, and without Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import runpy, sys

for name in ("ray", "pyarrow", "tyro", "webdataset", "boto3"):
    sys.modules[name] = None  # as where it is not installed
sys.argv = ["benchmarks/gpu.py", *sys.argv[1:]]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def rows_of(folder, *stages):
    """Runs stages on the CPU, where nothing but torch, torchvision and numpy is installed."""
    out = folder / "gpu.json"
    command = [sys.executable, "-c", PROGRAM, "--device", "cpu", "--quick", "--out", str(out)]
    done = subprocess.run(
        [*command, "--stage", *stages],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())["rows"]


def test_norms_are_compared_with_float64_where_ray_is_not_installed(tmp_path):
    rows = rows_of(tmp_path, "norms", "ray")
    exact = [row for row in rows if row.get("numerics") == "exact"]
    assert [row["network"] for row in exact] == ["cnn", "cnn5"]
    assert all(max(row["relative_error"].values()) < 1e-5 for row in exact)
    assert "not installed" in rows[-1]["left_out"]


@pytest.mark.slow
def test_every_stage_gives_rows(tmp_path):
    rows = rows_of(tmp_path, "norms", "speed", "tars", "training", "ray")
    assert {row["stage"] for row in rows} == {"norms", "speed", "tars", "training", "ray"}
    (tars,) = [row for row in rows if row["stage"] == "tars"]
    assert tars["images_per_s"] > 0
    speeds = [row for row in rows if row["stage"] == "speed"]
    assert all(len(row["seconds"]) == 2 for row in speeds), "every repetition is kept"
