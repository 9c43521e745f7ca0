"""A cluster that grows and shrinks while `raygrad score` runs on it: nodes simulated by Ray."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from raygrad.config import ScoreConfig
from raygrad.data.decode import decode_image
from raygrad.runs import score_table
from raygrad.scoring import example_scores, per_example_grad_norms
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.preprocess import Normalize
from tests.data.making import example, jpeg, put
from tests.jobs import slow_network

ROOT = Path(__file__).parent.parent.parent
NUM_SHARDS, PER_SHARD = 130, 4
TIMEOUT_S = 500
pytestmark = [pytest.mark.long(seconds=120), pytest.mark.timeout(900)]
NETWORK = "tests.jobs.slow_network:Slow"
COLUMNS = ("grad_l2_last_layer_weights", "loss")


@pytest.fixture
def hurry(tmp_path):
    """The file that lets passes take no time, once it is there."""
    return tmp_path / "hurry"


@pytest.fixture
def cluster(monkeypatch, hurry):
    """A head of one CPU; more nodes come and go."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv(slow_network.HURRY, str(hurry))
    monkeypatch.setenv("RAYGRAD_TEST_PASS_S", "2")
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


def one_by_one(monkeypatch):
    """The scores by key, from one network in this process, an image at a time."""
    monkeypatch.setattr(slow_network, "PASS_S", 0.0)
    defaults = ScoreConfig()
    network = build_network(NETWORK, ImageSpec(3, 16, 16, 3), defaults.weights_seed).eval()
    normalize = Normalize(defaults.mean, defaults.std)
    found = {}
    for shard in range(NUM_SHARDS):
        for at in range(PER_SHARD):
            pixels = decode_image(jpeg(shard * 10 + at, (16, 16)), channels=3)
            image = normalize(torch.from_numpy(pixels.transpose(2, 0, 1))[None])
            label = torch.tensor([at % 3])
            norm = per_example_grad_norms(network, image, label, COLUMNS[:1])[COLUMNS[0]]
            loss = example_scores(network(image).detach(), label)["loss"]
            found[f"s{shard:03}-{at}"] = (float(norm), float(loss))
    return found


def test_scoring_takes_nodes_that_come_and_survives_the_loss_of_one(
    cluster, hurry, tmp_path, monkeypatch
):
    """One actor, two nodes for two more, one of which is lost: the scores of one process."""
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "raygrad", "score", "--data", shards(tmp_path), "--run", str(run),
        "--network", NETWORK, "--fresh-weights", "--image-size", "16", "--max-actors", "3",
        "--columns", *COLUMNS, "--batch-size", str(PER_SHARD),
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
        found = re.search(r"score: (\d+) of \d+ images.* (\d+) actors?\b", text)
        if found is None:
            continue
        most = max(most, int(found[2]))
        if node is None:
            node = cluster.add_node(num_cpus=1)
            cluster.add_node(num_cpus=1)
        elif most >= 3 and lost_at is None:
            lost_at = int(found[1])
            cluster.remove_node(node, allow_graceful=False)
            hurry.touch()
    assert process.wait(TIMEOUT_S) == 0, "".join(said)
    assert most >= 3, "the new nodes were used: " + "".join(said)
    assert lost_at is not None
    assert lost_at < NUM_SHARDS * PER_SHARD, "it was lost while work was left"
    table = score_table.read_score_table(next(str(path) for path in (run / "scores").iterdir()))
    keys = table["key"].to_pylist()
    assert len(keys) == len(set(keys)) == NUM_SHARDS * PER_SHARD
    scores = zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
    expected = one_by_one(monkeypatch)
    assert dict(zip(keys, scores, strict=True)) == {
        key: pytest.approx(values, rel=1e-5) for key, values in expected.items()
    }
