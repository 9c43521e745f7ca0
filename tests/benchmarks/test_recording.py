"""A record holds every repetition and what it was measured on, also of a run that is cut short."""

import json
from pathlib import Path

import numpy as np

from benchmarks.recording import Record


def test_a_record_holds_settings_every_repetition_machine_and_source(tmp_path):
    record = Record("Claim: fast.", settings={"rounds": np.int64(3), "tars": Path("/data/a.tar")})
    record.add(way="raygrad", seconds=np.array([1.0, 2.0, 1.5]))
    record.write(tmp_path / "record.json")
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["settings"] == {"rounds": 3, "tars": "a.tar"}, "no path of one machine"
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
