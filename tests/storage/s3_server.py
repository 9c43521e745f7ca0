"""A real S3 server for tests: SeaweedFS on loopback, started and ended by its own process id."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

# Such as are found nowhere else: tests look for them where no credential may be.
ACCESS_KEY, SECRET_KEY = "RAYGRADTESTKEY5D0C", "raygrad/test+secret/4f1b7a"
READER_KEY, READER_SECRET = "RAYGRADREADER5D0C", "raygrad/read+secret/9c2e1d"
"""An identity that may read and list, and write nothing."""


def find_weed() -> str | None:
    """Returns the `weed` binary of this environment."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


class S3Server:
    """One SeaweedFS process; `kill` and `start` again keep its data and its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        self._ports = free_ports(8)
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        reader = {
            "name": "reader",
            "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
            "actions": ["Read", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity, reader]}))
        self.endpoint = f"http://127.0.0.1:{self._ports[3]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 60.0) -> None:
        """Starts the server and waits until it stores an object."""
        master, volume, filer, s3, *grpc = self._ports
        command = [
            str(find_weed()),
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.folder / 'data'}",
            f"-master.port={master}",
            f"-master.port.grpc={grpc[0]}",
            "-master.volumeSizeLimitMB=64",
            f"-volume.port={volume}",
            f"-volume.port.grpc={grpc[1]}",
            "-volume.max=100",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={grpc[2]}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={grpc[3]}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={self.folder / 's3.json'}",
        ]
        with open(self.folder / "weed.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                client = self.client()
                if "probe" not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket="probe")
                client.put_object(Bucket="probe", Key="probe", Body=b"1")
                return
            except (BotoCoreError, ClientError):
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self.kill()
                    raise RuntimeError((self.folder / "weed.log").read_text()[-4000:]) from None
                time.sleep(0.2)

    def kill(self) -> None:
        """Ends the process at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self):
        """Returns a boto3 client that is not the one under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on now, below those that the system gives to clients.

    Test workers draw from ranges of their own: a server that is killed finds its ports free when it
    is started again.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = 20_000 + worker * 1_500
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(first, first + 1_500)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)
