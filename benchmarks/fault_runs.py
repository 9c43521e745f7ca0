"""The runs that faults are done to, and among them scoring from S3 to S3."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fault_checks import SCORES, Outcome, Row
from benchmarks.fault_clock.sitecustomize import CLOCK
from benchmarks.fault_networks import BROKEN
from benchmarks.fault_processes import living
from benchmarks.fault_proxy import Proxy
from tests.data.making import example, jpeg, tar
from tests.storage import s3_server

ROOT = Path(__file__).parent.parent
NUM_SHARDS, PER_SHARD, SIZE, CLASSES = 16, 4, 16, 3
BROKEN_IMAGES = ("s03-1", "s11-2")
SCORE = (
    "--network benchmarks.fault_networks:Slow --fresh-weights --columns grad_l2_all loss el2n "
    f"--image-size {SIZE} --batch-size {PER_SHARD} --shard-timeout-s 120 --max-reject-share 0.2"
)
LEFT = (".tmp", ".lock", ".part")
"""How files end that nothing may leave behind."""


class Runs(Protocol):
    """Makes runs of one stage."""

    own: set[int]
    """Processes of the harness itself."""

    def new(self, outcome: Outcome) -> "Run":
        """Returns a run in a folder of its own, whose history goes to an outcome."""

    def close(self) -> None:
        """Ends what all runs share."""


class Run:
    """One run folder and the commands that work on it; a context that watches it.

    Args:
        command: The arguments of `raygrad`.
        environment: What the command's environment has beside this one's.
        log: Where the command's output goes.
        outcome: Takes the history.
    """

    worker = "ShardScorer"
    """Part of the command lines of what scores or trains."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], log: Path, outcome: Outcome
    ) -> None:
        self.outcome, self.storage, self.is_full = outcome, "up", False
        self.broken, self.clock = log.with_suffix(".broken"), log.with_suffix(".clock")
        self._command, self._log, self._at = list(command), log, 0
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks' / 'fault_clock'}",
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            BROKEN: str(self.broken),
            CLOCK: str(self.clock),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._second: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._log.unlink(missing_ok=True)
        self.clock.unlink(missing_ok=True)
        shutil.rmtree(self.broken, ignore_errors=True)

    @property
    def driver(self) -> int:
        """The process of the command."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the command."""
        self._at = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._popen()

    def start_second(self) -> None:
        """Starts the same command beside the first, once."""
        if self._second is None:
            self._second = self._popen()

    def wait_for_second(self) -> None:
        """Waits until the second command has ended, where there is one."""
        if self._second is not None:
            self._second.wait()

    def status(self) -> int | None:
        """Returns the command's status, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def wait(self) -> int:
        """Waits until the command has ended; returns its status as a shell gives it."""
        assert self._process is not None
        status = self._process.wait()
        return 128 - status if status < 0 else status

    def workers(self) -> list[int]:
        """Returns the processes that score or train."""
        return sorted(pid for pid, name in living(()).items() if self.worker in name)

    def nodes(self) -> list[int]:
        """Returns the processes that are nodes."""
        return sorted(
            pid for pid, name in living(()).items() if name.split(" ")[0].endswith("/raylet")
        )

    def set_storage(self, mode: str) -> None:
        """Makes storage behave in a way of the proxy's modes."""
        self.storage = mode

    def set_clock(self, off_s: float) -> None:
        """Sets the clock of the workers off by so much."""
        if off_s:
            self.clock.write_text(f"{off_s}")
        else:
            self.clock.unlink(missing_ok=True)

    def fill_disk(self) -> None:
        """Leaves no room where the run writes."""
        raise NotImplementedError

    def empty_disk(self) -> None:
        """Gives the room back."""
        raise NotImplementedError

    def said(self) -> str:
        """Returns what all commands have said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def said_now(self) -> str:
        """Returns what has been said since the last start."""
        return self._log.read_bytes()[self._at :].decode(errors="replace")

    def progress(self) -> float:
        """Returns how far the run has come, in [0, 1]."""
        raise NotImplementedError

    def collect(self) -> None:
        """Gives the outcome what the run has left."""
        raise NotImplementedError

    def _popen(self) -> "subprocess.Popen[bytes]":
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "raygrad", *self._command],
                cwd=ROOT, stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip


class ScoreRuns:
    """Runs of `raygrad score` over shards on a real S3 server, behind a proxy.

    Args:
        folder: Where the server keeps its data, and commands their output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._server = s3_server.S3Server(folder / "s3")
        self._server.start()
        self._client = self._server.client()
        self._proxy = Proxy(int(self._server.endpoint.rpartition(":")[2]))
        self.own = set(living(()))
        for shard in range(NUM_SHARDS):
            members = []
            for at in range(PER_SHARD):
                key, image = f"s{shard:02}-{at}", jpeg(shard * 10 + at, (SIZE, SIZE))
                if key in BROKEN_IMAGES:
                    image = image[: len(image) // 2]
                members += example(key, at % CLASSES, "jpg", image)
            body = tar(members)
            self._client.put_object(Bucket="probe", Key=f"data/own-{shard:02}.tar", Body=body)

    def new(self, outcome: Outcome) -> Run:
        """Returns a run whose folder is new."""
        self._number += 1
        log = self._folder / f"run-{self._number}.log"
        return _ScoreRun(self._client, self._proxy, f"run-{self._number}", log, outcome)

    def close(self) -> None:
        """Ends the proxy and the server."""
        self._proxy.stop()
        self._server.kill()


class _ScoreRun(Run):
    def __init__(self, client: Any, proxy: Proxy, name: str, log: Path, outcome: Outcome) -> None:
        data = f"s3://probe/data/own-{{00..{NUM_SHARDS - 1}}}.tar"
        command = ["score", "--data", data, "--run", f"s3://probe/{name}", *SCORE.split()]
        environment = {
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "AWS_ACCESS_KEY_ID": s3_server.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": s3_server.SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        super().__init__(command, environment, log, outcome)
        self._client, self._proxy, self._name = client, proxy, name
        self._etags: dict[str, str] = {}
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Run":
        self._proxy.set_mode("up")
        self._reader.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._ended.set()
        self._reader.join()
        super().__exit__(*of)

    def set_storage(self, mode: str) -> None:
        """Makes the proxy behave so."""
        super().set_storage(mode)
        self._proxy.set_mode(mode)

    def progress(self) -> float:
        """Returns the share of shards that have their part."""
        return len(self._etags) / NUM_SHARDS

    def collect(self) -> None:
        """Reads the table as a user would, from the server itself."""
        self._ended.set()
        self._reader.join()
        objects = self._objects()
        # Parts of the index are named by all that they depend on, the run's folder too.
        kept = [name for name in objects if "/index-parts/" not in name]
        names = [name.rsplit("/", 1)[-1] for name in kept]
        self.outcome.leftovers = [name for name in objects if name.endswith(LEFT)]
        uploads = self._client.list_multipart_uploads(Bucket="probe").get("Uploads", ())
        self.outcome.leftovers += [one["Key"] for one in uploads if self._name in one["Key"]]
        rows: list[Row] = []
        for name in objects:
            if _is_part(name):
                rows += _rows(self._body(name))
        self.outcome.tables = {
            SCORES: rows,
            "files": [(name,) for name in sorted(names) if name.startswith(("part-", "_man"))],
            "index": [(str(len(objects) - len(kept)),)],
        }
        rejects = [name for name in objects if name.endswith("/rejects.parquet")]
        for name in rejects:
            self.outcome.tables[name.removeprefix(f"{self._name}/")] = _rows(self._body(name))
        score_rejects = [name for name in rejects if "/scores/" in name]
        self.outcome.num_used = len(rows)
        self.outcome.num_rejected = sum(len(_rows(self._body(name))) for name in score_rejects)
        self.outcome.num_indexed = NUM_SHARDS * PER_SHARD

    def _read(self) -> None:
        """Polls as another program would, and reads all that it has not seen."""
        while not self._ended.is_set():
            for name, etag in self._objects().items():
                if _is_part(name) and self._etags.get(name) != etag:
                    self._see(name)
                    self._etags[name] = etag
            time.sleep(0.3)

    def _see(self, name: str) -> None:
        try:
            rows = _rows(self._body(name))
        except (pa.ArrowInvalid, OSError) as error:
            self.outcome.torn.append(f"{name}: {error}")
            return
        digest = hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest()
        self.outcome.seen.setdefault(name.rsplit("/", 1)[-1], []).append(digest)

    def _objects(self) -> dict[str, str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket="probe", Prefix=f"{self._name}/"
        )
        return {one["Key"]: one["ETag"] for page in pages for one in page.get("Contents", ())}

    def _body(self, name: str) -> bytes:
        return self._client.get_object(Bucket="probe", Key=name)["Body"].read()


def _is_part(name: str) -> bool:
    return "/scores/" in name and name.rsplit("/", 1)[-1].startswith("part-")


def _rows(data: bytes) -> list[Row]:
    table = pq.read_table(io.BytesIO(data))
    columns = [[repr(value) for value in column.to_pylist()] for column in table.columns]
    return list(zip(*columns, strict=True))
