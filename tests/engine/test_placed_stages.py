"""That every stage really stands where the policy put it, on simulated nodes of several shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.long(seconds=200), pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]


def test_every_stage_stands_on_the_nodes_of_its_label_with_its_gpus(tmp_path):
    """One GPU a worker, an actor or a trial, as many as there are; tasks on the CPU node alone."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engine.placed_stages", str(tmp_path), "index", "score",
         "sweep", "train"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    # Of four processes those that begin first may do all of so little work.
    for stage, label in (("score", "score"), ("sweep", "train")):
        ((stood_on, gpus, processes),) = found.pop(stage)
        assert (stood_on, gpus) == (label, 1)
        assert 1 <= processes <= 4
    assert found == {"index": [["index", 0, 6]], "train": [["train", 1, 4]]}
    assert "score: 4 actors on cuda, 1 GPU and 1.8 CPU each: 2 nodes of 2 GPU, 4 CPU" in ran.stderr
