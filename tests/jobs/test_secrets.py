"""No credential reaches a run folder, a log or a file of Ray's: planted ones are looked for."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raygrad.storage import files
from tests.jobs.planted import files_that_tell, objects_that_tell, tells

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long(seconds=60), pytest.mark.timeout(900)]
FLAGS = [
    "--data.shard-bytes", "800000", "--train.network", "linear", "--train.epochs", "2",
    "--train.lr-decay-epochs", "1", "--train.num-workers", "1", "--sweep.max-concurrent", "1",
    "--select.methods", "random", "--select.keep-fractions", "0.1", "1", "--select.seeds", "0",
]  # fmt: skip


@pytest.fixture
def ray_folder():
    """Where Ray keeps the files of its session; short, as a socket's path may be."""
    folder = Path(tempfile.mkdtemp(prefix="raygrad-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_study_on_s3_writes_its_credentials_nowhere(s3_url, s3_process, ray_folder):
    """The whole study, shards and run folder on S3: objects, output, and every file of Ray's."""
    run = f"{s3_url}/run"
    command = [sys.executable, "-m", "raygrad", "run", "--run", run, *FLAGS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(ray_folder)}
    environment |= {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert files.exists(f"{run}/report/index.html")
    assert not tells(done.stdout + done.stderr)
    assert list((ray_folder / "ray").rglob("runtime_env_agent.log")), "Ray's logs stand elsewhere"
    assert not list(files_that_tell(ray_folder))
    bucket, prefix = run.removeprefix("s3://").split("/", 1)
    assert not list(objects_that_tell(s3_process.client(), bucket, prefix))
