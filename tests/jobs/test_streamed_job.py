"""The small run of the ImageNet job over photographs: streamed, and kept on the node's disk."""

import json

import pyarrow.parquet as pq
import pytest

from tests.data.making import example, jpeg, put
from tests.jobs.test_jobs import run_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ["--sweep.networks", "cnn5", "--train.network", "cnn5"]
WAYS = {
    # With the networks of the small run itself, which stand for the real one's.
    "stream": (
        ["--train.data", "stream", "--train.augment", "photo_crop", "--train.shuffle-buffer", "16"],
        "data: streamed, ",
        ["vgg16_32", "cnn5"],
    ),
    "disk": ([*SMALL, "--train.data", "disk"], "decoded, kept in ", ["cnn5"]),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three shards for training and one for the test: JPEGs of several sizes, one broken."""
    folder = tmp_path_factory.mktemp("photographs")
    for shard in range(4):
        members = []
        for at in range(shard * 12, shard * 12 + 12):
            image = b"broken" if at == 5 else jpeg(at, (80 + at, 60))
            members += example(f"{at:03d}", at % 3, "jpg", image)
        put(folder, f"{'test' if shard == 3 else 'train'}-{shard}.tar", members)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_the_small_run_ends_with_two_workers(ray_session, photographs, tmp_path, way, caplog):
    flags, said, networks = WAYS[way]
    run = tmp_path / "run"
    with caplog.at_level("INFO", "raygrad"):
        status = run_job("imagenet", [
            "--smoke", "--data", f"{photographs}/train-*.tar",
            "--test-data", f"{photographs}/test-*.tar", "--storage", str(run),
            "--train.num-workers", "2", "--train.batch-size", "8", "--train.probe-size", "8",
            "--train.numerics", "exact",
            "--select.methods", "random", "--select.keep-fractions", "0.5", "1.0",
            "--data.max-reject-share", "0.1", "--data.cache-dir", str(tmp_path / "cache"),
            *flags,
        ])  # fmt: skip
    assert status == 0
    assert said in caplog.text
    metrics = json.loads((run / "train" / networks[0] / "metrics.json").read_text())
    assert metrics["world_size"] == 2
    assert metrics["rejected"] == 1
    assert metrics["num_train"] + metrics["num_val"] == 35
    results = pq.read_table(run / "sweep/results.parquet")
    assert (results.num_rows, set(results["network"].to_pylist())) == (
        2 * len(networks), set(networks),
    )  # fmt: skip
    assert (run / "report/index.html").exists()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == (3 if way == "disk" else 0)
    assert (run / "data/survey").exists() == (way == "stream")
