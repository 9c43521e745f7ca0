"""Scoring from S3 to S3 while the server goes away for ten seconds, and the driver for good."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raygrad.data.decode import decode_image
from raygrad.runs import score_table
from raygrad.storage import files
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource
from tests import preloaded
from tests.data.making import example, jpeg, tar
from tests.jobs.slow_network import HURRY

ROOT = Path(__file__).parents[3]
NETWORK, SIZE, CLASSES = "tests.jobs.slow_network:Slow", 16, 3
NUM_SHARDS, PER_SHARD = 24, 4
DOWN_S, TIMEOUT_S = 10.0, 300
pytestmark = [pytest.mark.long(seconds=120), pytest.mark.timeout(900)]
COLUMNS = ("grad_l2_last_layer_weights", "loss")


def image_of(shard, at):
    return jpeg(shard * 10 + at, (SIZE, SIZE))


@pytest.fixture
def tars(s3_url):
    for shard in range(NUM_SHARDS):
        members = []
        for at in range(PER_SHARD):
            members += example(f"s{shard:02}-{at}", at % CLASSES, "jpg", image_of(shard, at))
        files.write_bytes(f"{s3_url}/own-{shard:02}.tar", tar(members))
    return f"{s3_url}/own-{{00..{NUM_SHARDS - 1}}}.tar"


def oracle():
    """Each example's scores by single-example autograd, from the bytes that the shards hold."""
    network = NetworkSource(NETWORK, ImageSpec(3, SIZE, SIZE, CLASSES), None, 0).build().eval()
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    found = {}
    for shard in range(NUM_SHARDS):
        for at in range(PER_SHARD):
            pixels = decode_image(image_of(shard, at), channels=3).astype(np.float32) / 255
            inputs = torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1).copy())
            logits = network.head(inputs.flatten()[None])
            loss = F.cross_entropy(logits, torch.tensor([at % CLASSES]))
            (gradient,) = torch.autograd.grad(loss, [network.head.weight])
            found[f"s{shard:02}-{at}"] = (gradient.norm().item(), loss.item())
    return found


def started(tars, run, **more):
    """Starts the command, on a Ray of its own; `more` goes into its environment."""
    command = [
        "-m", "raygrad", "score", "--data", tars, "--run", run,
        "--network", NETWORK, "--fresh-weights", "--image-size", str(SIZE), "--columns", *COLUMNS,
        "--batch-size", str(PER_SHARD),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **more}
    return preloaded.started(command, environment, ROOT)


def outage(server):
    """The server is gone, and back after `DOWN_S` with what it had."""
    server.kill()
    time.sleep(DOWN_S)
    server.start()


def test_the_table_is_right_after_an_outage_of_s3_and_a_killed_driver(tars, s3_url, s3_env):
    """Ten seconds without S3 cost time only; a killed driver's parts are not done again."""
    run, said, down = f"{s3_url}/run", [], None
    process = started(tars, run)
    deadline_s = time.monotonic() + TIMEOUT_S
    for text in process.stderr:
        said.append(text)
        assert time.monotonic() < deadline_s, "".join(said)
        found = re.search(r"score: (\d+) of \d+ images", text)
        if found is None or int(found[1]) == 0:
            continue
        if down is None:
            down = threading.Thread(target=outage, args=(s3_env,))
            down.start()
            before = int(found[1])
        elif not down.is_alive() and int(found[1]) > before + 2 * PER_SHARD:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL, "".join(said)

    again = started(tars, run, **{HURRY: str(ROOT)})
    rest = again.stderr.readlines()
    assert again.wait(TIMEOUT_S) == 0, "".join(rest)
    assert re.search(r"score: [1-9]\d* of 24 shards have their part already", "".join(rest))
    table = score_table.read_score_table(_table_of(run))
    keys, expected = table["key"].to_pylist(), oracle()
    assert sorted(keys) == sorted(expected)
    for at, key in enumerate(keys):
        for name, value in zip(COLUMNS, expected[key], strict=True):
            assert table[name][at].as_py() == pytest.approx(value, rel=1e-5)
    left = [info.path for info in files.list_infos(run, recursive=True)]
    assert not [path for path in left if path.endswith(".tmp")]


def _table_of(run):
    """The one score table of a run."""
    (found,) = {
        info.path.rsplit("/", 1)[0]
        for info in files.list_infos(f"{run}/scores", recursive=True)
        if "/part-" in info.path
    }
    return f"s3://{found}"
