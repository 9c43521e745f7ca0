"""`ray job submit` of the ImageNet job: a real head, photographs on a real S3 server, four tries.

One run of the story that cluster/README.md tells: a job that is stopped, one whose driver is
killed, one that cannot finish, and one that completes the run; each goes on from the one before.
"""

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.data.making import example, jpeg, tar
from tests.jobs.head import ROOT, LocalCluster, find_ray
from tests.jobs.planted import files_that_tell, objects_that_tell, tells
from tests.storage.s3_server import ACCESS_KEY, SECRET_KEY

SERVER_NEEDS = ("aiohttp", "aiohttp_cors", "grpc", "opencensus", "prometheus_client", "smart_open")
LACKING = [name for name in SERVER_NEEDS if importlib.util.find_spec(name) is None]
BUCKET, FOLDER = "probe", "submitted"
NUM_SHARDS, PER_SHARD = 3, 20
pytestmark = [pytest.mark.long(seconds=250), pytest.mark.timeout(900)]
ENTRYPOINT = [
    "python", "jobs/imagenet.py", "--smoke",
    "--data", f"s3://{BUCKET}/{FOLDER}/train-{{000000..{NUM_SHARDS - 1:06}}}.tar",
    "--test-data", f"s3://{BUCKET}/{FOLDER}/test-000000.tar",
    "--storage", f"s3://{BUCKET}/{FOLDER}/run",
    # A network of seconds: what is tried here is the way of a job, not its arithmetic.
    "--train.network", "linear", "--train.save-interval-s", "0", "--train.probe-size", "16",
    "--sweep.networks", "linear", "--select.methods", "random", "max_gradient",
]  # fmt: skip


@pytest.fixture
def s3(s3_process):
    """A client of the server, which holds shards of photographs of several sizes."""
    client = s3_process.client()
    for split, count in (("train", NUM_SHARDS), ("test", 1)):
        for shard in range(count):
            content = photographs(split, shard)
            client.put_object(Bucket=BUCKET, Key=shard_key(split, shard), Body=content)
    return client


def photographs(split, shard):
    """Returns a tar of JPEGs in three classes."""
    members = []
    for at in range(PER_SHARD):
        seed = shard * PER_SHARD + at + 10_000 * (split == "test")
        members += example(f"{split}-{seed}", at % 3, "jpg", jpeg(seed, (80 + at, 60)))
    return tar(members)


def shard_key(split, shard):
    return f"{FOLDER}/{split}-{shard:06}.tar"


@pytest.fixture
def cluster(s3_process):
    """A head and a worker whose environment, and no other, holds the credentials."""
    if find_ray() is None or LACKING:
        pytest.skip(f"no job server here, for want of {LACKING}: pip install 'ray[default]'")
    folder = Path(tempfile.mkdtemp(prefix="raygrad-test-", dir="/tmp"))
    environment = {
        "AWS_ENDPOINT_URL": s3_process.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    cluster = LocalCluster(folder, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


def follow_until(cluster, submission_id, pattern):
    """Follows a job's log, as `ray job logs -f` does, until a line matches."""
    said = []
    with cluster.follow(submission_id) as process:
        for text in process.stdout:
            said.append(text)
            if re.search(pattern, text):
                break
        else:
            pytest.fail(f"no line like {pattern!r} in " + "".join(said))
        process.kill()


def wait_until(cluster, submission_id, pattern, timeout_s=300):
    """Asks for a job's log until it says what is waited for; returns what it says by then."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        said = cluster.tell(f"{submission_id}/logs")["logs"]
        if re.search(pattern, said):
            return said
        assert cluster.tell(submission_id)["status"] in ("PENDING", "RUNNING"), said
        time.sleep(0.1)
    raise AssertionError(f"no line like {pattern!r} in {said}")


def wait_for_end(cluster, submission_id):
    """Returns a job's whole log and what the job server tells of it then."""
    told = ended(cluster, submission_id, 300)
    return cluster.tell(f"{submission_id}/logs")["logs"], told


def ended(cluster, submission_id, timeout_s=60):
    """Waits for a job to end; returns what the job server tells of it."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        told = cluster.tell(submission_id)
        if told["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
            return told
        time.sleep(0.5)
    raise AssertionError(f"{submission_id} must end, got {told}")


def run_keys(s3):
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{FOLDER}/run/").get("Contents", [])
    return {found["Key"].removeprefix(f"{FOLDER}/run/") for found in listed}


def read_rows(s3, key):
    content = s3.get_object(Bucket=BUCKET, Key=f"{FOLDER}/run/{key}")["Body"].read()
    return pq.read_table(io.BytesIO(content))


def test_a_job_that_is_stopped_killed_and_short_of_a_shard_ends_complete(cluster, s3, s3_process):
    """Stopped, killed by process id, short of a shard (2), complete: one run folder."""
    trained, scored = "train-linear", "score-linear"

    cluster.submit("stopped", [*ENTRYPOINT, "--train.epochs", "500", "--train.patience", "500"])
    follow_until(cluster, "stopped", r"train: \d+ of 500 epochs")
    assert cluster.jobs("stop", "stopped").returncode == 0
    assert ended(cluster, "stopped")["status"] == "STOPPED"
    assert "stages/prepare.json" in run_keys(s3)
    assert f"stages/{trained}.json" not in run_keys(s3)

    # The recipe may change, as no training was complete; the data are not prepared again.
    cluster.send("killed", ENTRYPOINT)
    said = wait_until(cluster, "killed", f"{scored}: starts")
    assert "prepare: complete, skipped" in said
    os.kill(int(cluster.tell("killed")["driver_info"]["pid"]), signal.SIGKILL)
    assert ended(cluster, "killed")["status"] == "FAILED"
    assert f"stages/{trained}.json" in run_keys(s3)
    assert f"stages/{scored}.json" not in run_keys(s3)

    lost = {"Bucket": BUCKET, "Key": shard_key("train", 1)}
    s3.delete_object(**lost)
    cluster.send("incomplete", ENTRYPOINT)
    said, told = wait_for_end(cluster, "incomplete")
    # What was indexed and is gone is seen at the start, before anything is scored.
    assert (told["status"], told["driver_exit_code"]) == ("FAILED", 2), said
    assert "train-000001" in said, "the shard that is missing is named"

    s3.put_object(**lost, Body=photographs("train", 1))
    cluster.send("complete", ENTRYPOINT)
    said, told = wait_for_end(cluster, "complete")
    assert (told["status"], told["driver_exit_code"]) == ("SUCCEEDED", 0), said
    assert f"{trained}: complete, skipped" in said
    check_complete(s3)

    logs = list(cluster.logs.rglob("runtime_env_agent.log"))
    assert len(logs) == 2, "both nodes' logs are looked through"
    assert not list(files_that_tell(cluster.logs))
    assert not list(objects_that_tell(s3, BUCKET, f"{FOLDER}/run"))
    assert not tells(json.dumps(cluster.tell("complete")).encode())
    assert cluster.listens_at() == {"0100007F"}, "dashboard and job server stay on loopback"


def check_complete(s3):
    """Every training example has one score, every trial its row, and there is a report."""
    keys = run_keys(s3)
    assert "report/index.html" in keys
    parts = sorted(key for key in keys if re.fullmatch(r"scores/linear/part-.*\.parquet", key))
    assert len(parts) == NUM_SHARDS
    found = [key for part in parts for key in read_rows(s3, part)["key"].to_pylist()]
    index = read_rows(s3, "data/index.parquet")
    wanted = [row["key"] for row in index.to_pylist() if row["split"] == "train"]
    assert sorted(found) == sorted(wanted)
    results = read_rows(s3, "sweep/results.parquet")
    assert results.num_rows == 3  # random and max_gradient at 20%, and everything once
    assert results["test_accuracy"].null_count == 0


def test_the_cluster_files_say_where_the_dashboard_listens():
    """On loopback, in every file that starts a head of ours."""
    config = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
    for text in (config["head_start_ray_commands"][-1], (ROOT / "cluster/local.sh").read_text()):
        assert re.findall(r"--dashboard-host[= ](\S+)", text) == ["127.0.0.1"]
