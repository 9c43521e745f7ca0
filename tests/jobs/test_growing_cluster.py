"""A cluster that grows and shrinks while `raygrad score` runs on it: nodes simulated by Ray."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raygrad.data import score_table
from tests.data.making import example, jpeg, put

ROOT = Path(__file__).parent.parent.parent
NUM_SHARDS, PER_SHARD = 130, 4
TIMEOUT_S = 500


@pytest.fixture
def cluster(monkeypatch):
    """A head of one CPU; more nodes come and go."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def shards(folder):
    for shard in range(NUM_SHARDS):
        members = []
        for at in range(PER_SHARD):
            members += example(f"s{shard:03}-{at}", at % 3, "jpg", jpeg(shard * 10 + at, (16, 16)))
        put(folder, f"own-{shard:03}.tar", members)
    return str(folder / f"own-{{000..{NUM_SHARDS - 1}}}.tar")


def test_scoring_takes_a_node_that_comes_and_survives_its_loss(cluster, tmp_path):
    """One actor, then a node for two more, which is then gone: every example once, all the same."""
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "raygrad", "score", "--data", shards(tmp_path), "--run", str(run),
        "--network", "tests.jobs.slow_network:Slow", "--image-size", "16", "--max-actors", "3",
        "--columns", "grad_l2_last_layer_weights", "loss", "--batch-size", str(PER_SHARD),
    ]  # fmt: skip
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    node, most, lost_at, said = None, 0, None, []
    deadline_s = time.monotonic() + TIMEOUT_S
    for text in process.stderr:
        said.append(text)
        assert time.monotonic() < deadline_s, "".join(said)
        found = re.search(r"score: (\d+) of \d+ images.* (\d+) actors", text)
        if found is None:
            continue
        most = max(most, int(found[2]))
        if node is None:
            node = cluster.add_node(num_cpus=2)
        elif most >= 2 and lost_at is None:
            lost_at = int(found[1])
            cluster.remove_node(node, allow_graceful=False)
    assert process.wait(TIMEOUT_S) == 0, "".join(said)
    assert most >= 2, "the new node was used: " + "".join(said)
    assert lost_at is not None
    assert lost_at < NUM_SHARDS * PER_SHARD, "it was lost while work was left"
    table = score_table.read_score_table(next(str(path) for path in (run / "scores").iterdir()))
    keys = table["key"].to_pylist()
    assert len(keys) == len(set(keys)) == NUM_SHARDS * PER_SHARD
