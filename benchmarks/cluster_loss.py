"""Sixteen nodes, half of them lost at once, and nodes that come later: what that costs scoring.

    python benchmarks/cluster_loss.py --nodes 16 --shards 320 --pass-s 2

Nodes are Ray's own simulated ones on this host, each with a logical GPU and so an actor of its own;
an actor sleeps a measured time for each shard and then scores it on its CPU, so that two cores
stand for sixteen GPUs. Half the nodes are there at the start. As an autoscaler would, the others
come when some shards are done; then half of all are killed at once (SIGKILL, among them nodes of
both kinds); a quarter comes back at last. A start of the network, a task and a table are the real
ones: the table is compared with a loop over single images, and every attempt at a shard is noted.

For each run: when what happened, seconds of actors that were lost with their nodes (from the moment
a shard was begun to that of the kill), beside all their seconds, and attempts for each shard.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from benchmarks.recording import recorded  # noqa: E402
from raygrad.engine import ray_private  # noqa: E402
from raygrad.engine.score import actor, job, pool  # noqa: E402
from raygrad.engine.score.task import ScoreTask, ShardStatus  # noqa: E402
from tests.engine.score.scoring_cases import (  # noqa: E402
    assert_same_scores,
    bare_scores,
    by_key,
    make_config,
    make_shards,
    make_task,
)

PASS_S, NOTES = "RAYGRAD_LOSS_PASS_S", "RAYGRAD_LOSS_NOTES"
STEP_S = 0.25
GROWS_AT, LOSES_AT, RETURNS_AT = 0.1, 0.5, 0.6
"""The shares of the shards that are done when nodes come, go, and come again."""
ROOM_BYTES = 80 * 2**20


class SleepingWork(actor.ShardWork):
    """Scores on the CPU of a node that has a logical GPU, after a sleep, and notes each attempt."""

    def __init__(self, task: ScoreTask) -> None:
        super().__init__(replace(task, device="cpu"))
        self._node = ray.get_runtime_context().get_node_id()

    def score(self, shard: str, progress: Callable[[int, int], None]) -> ShardStatus:
        """Sleeps for the time that a pass is to take, then scores."""
        note = Path(os.environ[NOTES]) / uuid.uuid4().hex
        begun = {"shard": shard, "node": self._node, "begun_s": time.time()}
        note.write_text(json.dumps(begun))
        end_s = time.monotonic() + float(os.environ[PASS_S])
        while time.monotonic() < end_s:
            time.sleep(STEP_S)
            progress(0, 0)
        status = super().score(shard, progress)
        note.write_text(json.dumps({**begun, "ended_s": time.time(), "kind": status.kind}))
        return status


class SleepingScorer(actor.ShardScorer):
    """The real actor over `SleepingWork`."""

    def __init__(self, task: ScoreTask, board: Any) -> None:
        actor.ShardWork = SleepingWork  # type: ignore[misc]  # in this actor's process alone
        super().__init__(task, board)


class Nodes:
    """The cluster's nodes, and what happened to them.

    Args:
        cluster: Ray's simulated cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.events: list[dict[str, Any]] = []
        self.killed_s: dict[str, float] = {}
        self._cluster, self._living = cluster, list[Any]()

    def come(self, count: int) -> None:
        """Starts nodes."""
        begun_s = time.time()
        with ray_private.lean_node():
            for _ in range(count):
                self._living.append(
                    self._cluster.add_node(
                        num_cpus=1, num_gpus=1, object_store_memory=ROOM_BYTES, wait=False
                    )
                )
        self._cluster.wait_for_nodes()
        self._note("come", count, begun_s)

    def go(self, count: int) -> None:
        """Kills every second node, all at once."""
        begun_s, lost = time.time(), self._living[::2][:count]
        threads = [
            threading.Thread(
                target=self._cluster.remove_node, args=(node,), kwargs={"allow_graceful": False}
            )
            for node in lost
        ]
        self.killed_s |= {node.node_id: begun_s for node in lost}
        self._living = [node for node in self._living if node not in lost]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._note("go", count, begun_s)

    def _note(self, what: str, count: int, begun_s: float) -> None:
        self.events.append({"what": what, "count": count, "at": begun_s, "until": time.time()})


def attempts(notes: Path) -> list[dict[str, Any]]:
    """Returns what actors have noted of every attempt at a shard."""
    found = []
    for path in notes.iterdir():
        with contextlib.suppress(json.JSONDecodeError):  # its actor was killed as it wrote
            found.append(json.loads(path.read_text()))
    return found


def one_run(nodes_wanted: int, shards: int, pass_s: float) -> dict[str, Any]:
    """Scores on a cluster that half is lost of; returns what it took."""
    half = nodes_wanted // 2
    with tempfile.TemporaryDirectory(prefix="cluster-loss-") as name:
        folder = Path(name)
        notes = folder / "notes"
        notes.mkdir()
        os.environ |= {PASS_S: str(pass_s), NOTES: str(notes)}
        with ray_private.lean_node():
            head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": ROOM_BYTES}
            cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = Nodes(cluster)
        try:
            nodes.come(half)
            ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
            task = make_task(folder, make_shards(folder, shards, 3), cpus=0.5)
            scored = replace(task, device="cuda")
            plan = [
                (GROWS_AT, nodes.come, nodes_wanted - half),
                (LOSES_AT, nodes.go, half),
                (RETURNS_AT, nodes.come, nodes_wanted // 4),
            ]
            begun_s = time.time()
            pool.ShardScorer = SleepingScorer  # type: ignore[misc]  # the job's actor
            with ThreadPoolExecutor(1) as thread:  # Ray starts nodes on the main thread alone
                scoring = thread.submit(job.score, make_config(max_actors=nodes_wanted), scored)
                disturb(plan, folder, shards, scoring)
                facts = scoring.result()
            wall_s = time.time() - begun_s
            return found(folder, task, facts, nodes, begun_s) | {"wall_s": round(wall_s, 1)}
        finally:
            ray.shutdown()
            cluster.shutdown()


def disturb(
    plan: list[tuple[float, Callable[[int], None], int]],
    folder: Path,
    shards: int,
    scoring: Future[Any],
) -> None:
    """Does what is planned, each when so many shards have their part."""
    for share, do, count in plan:
        while len(list(folder.glob("scores/part-*.parquet"))) < share * shards:
            if scoring.done():
                return
            time.sleep(STEP_S)
        do(count)


def found(
    folder: Path, task: ScoreTask, facts: dict[str, Any], nodes: Nodes, begun_s: float
) -> dict[str, Any]:
    """Checks the table, and returns what the attempts and events say."""
    assert_same_scores(by_key(folder), bare_scores(task))
    assert [one["what"] for one in nodes.events] == ["come", "come", "go", "come"]
    tried = attempts(folder / "notes")
    ended = [one for one in tried if "ended_s" in one]
    done = Counter(one["shard"] for one in ended if one["kind"] == "done")
    lost = [one for one in tried if "ended_s" not in one]
    metrics = json.loads((folder / "scores" / "metrics.json").read_text())
    return {
        "facts": facts,
        "shards_scored": len(done),
        "scored_more_than_once": sum(count > 1 for count in done.values()),
        "attempts": len(tried),
        "lost_attempts": len(lost),
        "lost_of_killed_nodes": sum(one["node"] in nodes.killed_s for one in lost),
        "lost_s": round(
            sum(max(0.0, nodes.killed_s.get(one["node"], 0.0) - one["begun_s"]) for one in lost), 1
        ),
        "spent_s": round(sum(one["ended_s"] - one["begun_s"] for one in ended), 1),
        "most_actors": metrics["most_actors"],
        "retries": metrics["retries"],
        "set_aside": metrics["set_aside"],
        "events": [
            {**one, **{key: round(one[key] - begun_s, 1) for key in ("at", "until")}}
            for one in nodes.events
        ],
        "done_at": sorted(round(one["ended_s"] - begun_s, 1) for one in ended),
    }


def main() -> None:
    """Makes each run in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--shards", type=int, default=320)
    parser.add_argument("--pass-s", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    args, record = recorded(parser, "Half of the nodes lost at once cost time and nothing else.")
    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_BACKEND_LOG_LEVEL": "fatal"}
    for _ in range(args.rounds):
        row = one_run(args.nodes, args.shards, args.pass_s)
        record.add(**row)
        print(json.dumps({k: v for k, v in row.items() if k != "done_at"}), flush=True)


if __name__ == "__main__":
    main()
