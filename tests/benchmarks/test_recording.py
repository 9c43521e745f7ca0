"""A record holds every repetition and what it was measured on, also of a run that is cut short."""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recording import Record, recorded


def test_a_record_holds_settings_every_repetition_machine_and_source(tmp_path):
    record = Record(
        "Claim: fast.", settings={"rounds": np.int64(3), "tars": Path("/data/a.tar"), "run": "/b"}
    )
    record.add(way="raygrad", seconds=np.array([1.0, 2.0, 1.5]))
    record.write(tmp_path / "record.json")
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["settings"] == {"rounds": 3, "tars": "a.tar", "run": "b"}, "no path of one machine"
    assert found["rows"] == [{"way": "raygrad", "seconds": [1.0, 2.0, 1.5]}]
    assert {"processor", "cores", "load", "python", "numpy", "date"} <= set(found["machine"])
    assert set(found["source"]) == {"commit", "changed", "digest"}


def test_what_was_measured_is_on_disk_before_the_run_ends(tmp_path):
    path = tmp_path / "record.json"
    record = Record("Claim.", settings={})
    record.write(path)
    for at in range(3):
        record.add(at=at)
        assert [row["at"] for row in json.loads(path.read_text())["rows"]] == list(range(at + 1))
    assert [one.name for one in tmp_path.iterdir()] == ["record.json"]


NO_MEASUREMENT = {
    "attribute_table",
    "audit_backbone",
    "fault_checks",
    "fault_kinds",
    "fault_local_runs",
    "fault_networks",
    "fault_processes",
    "fault_proxy",
    "fault_runs",
    "bare_loop",
    "beside",
    "batch_aware_subsets",
    "gradient_norm_peers",
    "gpu_networks",
    "logged_network",
    "gpu_pipelines",
    "interleaved",
    "kept_files",
    "kept_plan",
    "kept_studies",
    "kept_table",
    "leaderboard",
    "noise_study",
    "readme_numbers",
    "scoring_case",
    "planting",
    "readme_picture",
    "record_pages",
    "recording",
    "sizing",
}
"""Parts of other scripts, and those that make tables and pictures of what was measured."""


def test_every_script_that_measures_writes_its_record():
    measuring = {
        path.stem: re.search(r"record\.add(_table)?\(", path.read_text())
        for path in Path("benchmarks").glob("*.py")
    }
    without = {name for name, records in measuring.items() if not records} - NO_MEASUREMENT
    assert without == set()


def test_a_number_that_is_none_is_null_and_tables_keep_their_names(tmp_path):
    """JSON has neither NaN nor infinity; a strict reader takes the record all the same."""
    record = Record("Claim.", settings={})
    record.add_table("points", [{"low": float("nan"), "high": np.float32("inf"), "n": 1}])
    record.write(tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found["rows"] == [{"table": "points", "low": None, "high": "inf", "n": 1}]


def test_flags_and_measurements_of_a_script_are_kept_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/some_speed.py"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    _, record = recorded(parser, "A is faster.", ["--record", str(tmp_path / "a.json")])
    record.add(way="a", seconds=[1.0, 2.0])
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept["settings"] == {"rounds": 3, "record": "a.json"}
    assert kept["rows"] == [{"way": "a", "seconds": [1.0, 2.0]}]
