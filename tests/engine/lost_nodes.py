"""A cluster of two nodes of one CPU each, one of which may be lost in the middle of some work."""

import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.preloaded import ran

ROOT = Path(__file__).parents[2]
PROGRAM = """
import pickle, sys
from pathlib import Path
from tests.engine.lost_nodes import _main
_main(*pickle.loads(Path(sys.argv[1]).read_bytes()))
"""
TIMEOUT_S = 400  # on a machine that others use as well; alone it takes a tenth


def losing_a_node(work: Callable[..., Any], is_time: Callable[[], bool], *arguments: Any) -> None:
    """Does some work in a process and on a cluster of its own, which loses a node meanwhile.

    Args:
        work: What is done; it leaves what is to be looked at in files.
        is_time: Asked again and again; the node is killed as soon as it says so.
        *arguments: What `work` is given.
    """
    _in_a_process(work, is_time, arguments)


def on_two_nodes(work: Callable[..., Any], *arguments: Any) -> None:
    """Does some work in a process and on a cluster of its own, which keeps its two nodes.

    Args:
        work: As of `losing_a_node`.
        *arguments: What `work` is given.
    """
    _in_a_process(work, None, arguments)


def _in_a_process(
    work: Callable[..., Any], is_time: Callable[[], bool] | None, arguments: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "given")
        given.write_bytes(pickle.dumps((work, is_time, arguments)))
        done = ran(
            ["-c", PROGRAM, str(given)], {**os.environ, "PYTHONPATH": str(ROOT)}, ROOT, TIMEOUT_S
        )
    assert done.returncode == 0, done.stderr


def _main(work: Callable[..., Any], is_time: Callable[[], bool] | None, arguments: Any) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from raygrad.engine.ray_private import lean_node

    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    with lean_node():
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False},
        )
        lost = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, logging_level=40, log_to_driver=False)
        cluster.wait_for_nodes()
        was_lost = threading.Event()

        def lose() -> None:
            assert is_time is not None
            while not is_time():
                time.sleep(0.05)
            cluster.remove_node(lost, allow_graceful=False)
            was_lost.set()

        if is_time is not None:
            threading.Thread(target=lose, daemon=True).start()
        work(*arguments)
        assert is_time is None or was_lost.is_set(), "the work ended before the node was lost"
    finally:
        ray.shutdown()
        cluster.shutdown()


def has_files(folder: Path, pattern: str, count: int) -> bool:
    """Returns whether a folder holds so many files."""
    return len(list(folder.rglob(pattern))) >= count
