"""A Ray cluster on loopback for tests: cluster/local.sh on free ports, ended by its own ids."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.storage.s3_server import free_ports

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 90.0
ENDS_WITHIN_S = 2.0
"""How long nodes may take to end by themselves; then they are killed."""


def find_ray() -> str | None:
    """Returns the `ray` command of this environment."""
    return shutil.which("ray", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


class LocalCluster:
    """A head without work and one worker node, each in a process group of its own.

    Args:
        folder: Logs, the token and the process ids.
        environment: What the nodes, and so the jobs on them, are started with beside ours.
        cpus: CPUs of the worker node.

    Its workers are forks (`forking_node.py`); those of the head begin as Ray starts them.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], cpus: int = 2) -> None:
        self._folder, self._cpus = folder, cpus
        # A node's own Ray must not be one that this process happens to be told of.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self._environment = {
            **inherited,
            **environment,
            # Else workers are nicer than any other load, and next to no time would be theirs.
            "RAY_worker_niceness": "0",
            "RAY": str(self._ray_that_forks()),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }
        self.logs: Path | None = None

    def _ray_that_forks(self) -> Path:
        """Returns a command `ray`: that of this environment, but for `ray start` of a worker."""
        command = self._folder / "commands" / "ray"
        command.parent.mkdir(parents=True)
        command.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            f'  *--head*) exec "{find_ray()}" "$@" ;;\n'
            f'  *) PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.jobs.forking_node "$@" ;;\n'
            "esac\n"
        )
        command.chmod(0o755)
        return command

    def start(self) -> None:
        """Starts head and worker, and waits until the job server answers."""
        port, dashboard_port, first_worker_port = _port_ranges()
        self.address = f"http://127.0.0.1:{dashboard_port}"
        environment = {
            **self._environment,
            "RAYGRAD_PORT": str(port),
            "RAYGRAD_DASHBOARD_PORT": str(dashboard_port),
            "RAYGRAD_FIRST_WORKER_PORT": str(first_worker_port),
        }
        done = subprocess.run(
            [str(ROOT / "cluster" / "local.sh"), str(self._folder), "1", str(self._cpus)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.said = done.stdout
        self.logs = Path(
            re.search(r"^logs .*, (\S+)/\*/session_latest/logs$", done.stdout, re.M)[1]
        )

    def job_environment(self) -> dict[str, str]:
        """Returns the environment of a client that may send jobs; it holds no S3 credential."""
        names = {k: v for k, v in self._environment.items() if not k.startswith("AWS_")}
        token = str(self._folder / "token")
        return {**names, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}

    def jobs(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess:
        """Runs `ray job ...` against the cluster."""
        return subprocess.run(
            self._job_command(arguments),
            env=self.job_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
        )

    def submit(self, submission_id: str, entrypoint: Sequence[str]) -> None:
        """Sends a job from the repository's root, as the README does, without waiting for it."""
        given = [f"--submission-id={submission_id}", "--working-dir=.", "--no-wait"]
        done = self.jobs("submit", *given, "--", *entrypoint)
        assert done.returncode == 0, done.stdout + done.stderr

    def send(self, submission_id: str, entrypoint: Sequence[str]) -> None:
        """Sends a job as `submit` does, by the client that `ray job submit` uses."""
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(self.address, headers=self._authorization())
        client.submit_job(
            entrypoint=shlex.join(entrypoint),
            submission_id=submission_id,
            runtime_env={"working_dir": str(ROOT)},
        )

    def tell(self, path: str) -> Any:
        """Returns what the job server tells one who has the token: `JOB`, or `JOB/logs`."""
        request = urllib.request.Request(
            f"{self.address}/api/jobs/{path}", headers=self._authorization()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token()}"}

    def follow(self, submission_id: str) -> subprocess.Popen:
        """Follows a job's log; its lines come as they are written."""
        return subprocess.Popen(
            self._job_command(["logs", "-f", submission_id]),
            env=self.job_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    def token(self) -> str:
        """Returns what a client must show."""
        return (self._folder / "token").read_text()

    def listens_at(self) -> set[str]:
        """Returns the addresses at which the dashboard and job server listen, as the kernel says.

        In the kernel's notation: 127.0.0.1 is 0100007F.
        """
        port = int(self.address.rpartition(":")[2])
        lines = [
            line.split()
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text().splitlines()[1:]
        ]
        listening = [fields[1].split(":") for fields in lines if fields[3] == "0A"]
        return {host for host, number in listening if int(number, 16) == port}

    def stop(self) -> None:
        """Ends the nodes by their process groups and removes Ray's temporary folder."""
        pids = self._folder / "pids"
        groups = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, number)
            end_s = time.monotonic() + ENDS_WITHIN_S
            while any(map(_is_there, groups)) and time.monotonic() < end_s:
                time.sleep(0.05)
        if self.logs is not None:
            shutil.rmtree(self.logs, ignore_errors=True)

    def _job_command(self, arguments: Sequence[str]) -> list[str]:
        command, *rest = arguments
        return [str(find_ray()), "job", command, f"--address={self.address}", *rest]


def _is_there(group: int) -> bool:
    """Returns whether a process group has a process; zombies count until they are waited for."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _port_ranges() -> tuple[int, int, int]:
    """Returns free ports for the head, its dashboard and its workers, below those of clients."""
    first = 11_000 + free_ports(1)[0] % 40 * 500
    return first, first + 10, first + 50
