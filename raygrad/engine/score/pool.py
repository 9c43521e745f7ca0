"""The pool of scoring actors as a Ray Data job: one row a shard, one status row back."""

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import ray.data

from raygrad.config import ScoreConfig
from raygrad.engine.score.actor import ShardScorer
from raygrad.engine.score.task import ScoreTask, ShardStatus
from raygrad.engine.session import cluster_capacity, fitting_workers
from raygrad.engine.waiting import Need
from raygrad.errors import RaygradError, ResourceError

log = logging.getLogger("raygrad")

CPUS_PER_ACTOR = 0.9
"""A pool that takes every CPU hangs as soon as another operator needs one."""

_POLL_S = 0.5


def choose_device(asked: str) -> Literal["cpu", "cuda"]:
    """Returns cpu or cuda: what was asked for, or cuda where the cluster has a GPU."""
    if asked == "cuda" or (asked == "auto" and cluster_capacity().get("GPU", 0) > 0):
        return "cuda"
    return "cpu"


def pool_size(config: ScoreConfig, device: str, num_shards: int) -> tuple[int, int, int]:
    """Returns how few and how many actors the pool may have, and how many it begins with.

    Where `max_actors` is named it holds, also above what the cluster has now: an autoscaling one
    grows for it. Otherwise the pool takes what the cluster has now.

    Raises:
        ResourceError: The cluster cannot hold one actor.
    """
    if device == "cuda":
        gpus = cluster_capacity().get("GPU", 0)
        fitting = int(gpus * config.actors_per_gpu + 1e-9)
        if fitting < 1:
            raise ResourceError(
                f"scoring on cuda must have a GPU, got a cluster with {gpus:g}. Use --device cpu."
            )
    else:
        cpus = cluster_capacity().get("CPU", 0)
        fitting = fitting_workers(
            max(1, int(cpus / CPUS_PER_ACTOR)), "scoring actors", CPUS_PER_ACTOR
        )
    most = min(config.max_actors or max(fitting, config.min_actors), num_shards)
    least = min(config.min_actors, most)
    if most > fitting:
        log.info("score: %d actors fit now; up to %d as the cluster grows", fitting, most)
    return least, most, max(least, min(fitting, most))


def actor_need(task: ScoreTask) -> Need:
    """Returns what has to be free before scoring can begin: room for one actor."""
    each = {"CPU": CPUS_PER_ACTOR * task.decode_threads}
    if task.device == "cuda":
        each["GPU"] = 1 / task.actors_per_gpu
    return Need(1, each)


def decode_threads(config: ScoreConfig, device: str) -> int:
    """Returns the threads of an actor that decode: one on a CPU, its share of them beside a GPU."""
    if config.decode_threads or device == "cpu":
        return config.decode_threads or 1
    resources = cluster_capacity()
    actors = max(1.0, resources.get("GPU", 0) * config.actors_per_gpu)
    return max(1, min(8, int(resources.get("CPU", 1) / actors)))


def pool_statuses(
    config: ScoreConfig, task: ScoreTask, board: Any, shards: Sequence[str]
) -> Iterator[ShardStatus | None]:
    """Yields the status of each shard as it comes, and None at least twice a second.

    Ray Data restarts dead actors and tries their shards again without end; the board bounds it.
    Its rows come on a thread, so that the caller is never held up by a cluster that stands still.

    Raises:
        RaygradError: The job itself failed.
    """
    least, most, first = pool_size(config, task.device, len(shards))
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    # A shard may take hours; the actors' own clocks and the board notice what stands still.
    context.execution_no_progress_timeout_s = -1
    context.max_consecutive_actor_init_deaths = 3
    each = actor_need(task).each
    gpu = {"num_gpus": each["GPU"]} if "GPU" in each else {}
    with ray.data.DataContext.current(context):
        statuses = ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        ).map_batches(
            ShardScorer,
            fn_constructor_args=(task, board),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, initial_size=first),
            num_cpus=each["CPU"],
            **gpu,
        )
    ready: queue.Queue[Any] = queue.Queue()
    stopped = threading.Event()

    def drain() -> None:
        try:
            for row in statuses.iter_rows():
                ready.put(ShardStatus(**row))
                if stopped.is_set():
                    return
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the row is awaited
            ready.put(error)

    threading.Thread(target=drain, daemon=True, name="raygrad-score").start()
    try:
        while True:
            try:
                item = ready.get(timeout=_POLL_S)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise RaygradError(
                    f"scoring actors must live, got {item}. Run again to go on."
                ) from item
            yield item
    finally:
        stopped.set()
