"""The pool of scoring actors as a Ray Data job: one row a shard, one status row back.

A block of rows costs the driver some milliseconds and kilobytes, however little is in it. Shards of
few examples therefore go several a block; of all others a block holds one.
"""

import dataclasses
import logging
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import ray.data
from ray.util.placement_group import NODE_ID_LABEL_KEY

from raygrad.config import ScoreConfig
from raygrad.config.nodes import selector_of
from raygrad.engine import ray_private
from raygrad.engine.nodes import offer_of
from raygrad.engine.placement import Placement, place_scoring
from raygrad.engine.score.actor import SHARDS_AT_A_TIME, ShardScorer
from raygrad.engine.score.blame import Place
from raygrad.engine.score.task import ScoreTask, ShardStatus
from raygrad.engine.waiting import Need
from raygrad.errors import RaygradError

log = logging.getLogger("raygrad")

_ENDED_WITHIN_S = 10.0
"""How long Ray Data may take to end a job that is left before its end."""
_POLL_S = 0.5
_BLOCK_EXAMPLES = 256
"""Shards go several a block while it holds no more examples than these: seconds of work, by which
a status may be late and actors may end apart."""
_BLOCK_SHARDS = 32
_BLOCKS_EACH = 32
"""So many blocks there are at least for each actor, or else a block holds one shard."""


def scoring_placement(config: ScoreConfig) -> Placement:
    """Returns what is decided for scoring on the cluster that there is.

    Raises:
        ResourceError: The cluster cannot hold one actor.
    """
    return place_scoring(config, offer_of(config.nodes))


def pool_size(config: ScoreConfig, fitting: int, num_shards: int) -> tuple[int, int, int]:
    """Returns how few and how many actors the pool may have, and how many it begins with.

    Where `max_actors` is named it holds, also above what fits: an autoscaling cluster grows for it.
    """
    most = min(config.max_actors or max(fitting, config.min_actors), num_shards)
    least = min(config.min_actors, most)
    if most > fitting:
        log.info("score: %d actors fit now; up to %d as the cluster grows", fitting, most)
    return least, most, max(least, min(fitting, most))


def shards_a_block(num_shards: int, num_examples: int, most_actors: int) -> int:
    """Returns how many shards a block of the job holds.

    Args:
        num_shards: How many there are.
        num_examples: Of all of them.
        most_actors: How large the pool may grow.
    """
    by_examples = _BLOCK_EXAMPLES * num_shards // max(num_examples, 1)
    by_actors = num_shards // (_BLOCKS_EACH * most_actors)
    return max(1, min(_BLOCK_SHARDS, by_examples, by_actors))


def actor_need(config: ScoreConfig, task: ScoreTask, aside: Sequence[Place] = ()) -> Need:
    """Returns what has to be free before scoring can begin: room for one actor.

    Args:
        config: As of `score`.
        task: As of `score`.
        aside: Places that are set aside; actors stand on none of those that are whole nodes.
    """
    each = {"CPU": task.cpus}
    if task.device == "cuda":
        each["GPU"] = 1 / task.actors_per_gpu
    labels = selector_of(config.nodes)
    nodes = sorted(place.node for place in aside if not place.gpu)
    if nodes and NODE_ID_LABEL_KEY not in labels:
        labels[NODE_ID_LABEL_KEY] = f"!in({','.join(nodes)})"
    return Need(1, each, labels)


def _job(
    config: ScoreConfig,
    task: ScoreTask,
    board: Any,
    shards: Mapping[str, int],
    aside: Sequence[Place],
) -> Any:
    """Returns the Ray Data job, a status row a shard, and says where its actors stand."""
    need = actor_need(config, task, aside)
    fitting = need.offer.room(need.each)
    # An actor more for each GPU that is set aside: Ray may put one there, which then only waits.
    num_held = sum(bool(place.gpu) for place in aside)
    least, most, first = pool_size(config, fitting, len(shards) + num_held)
    placed = Placement("score", task.device, "actor", fitting, need.each, need.offer)
    log.info("%s", placed.line(first))
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    # A shard may take hours; the actors' own clocks and the board notice what stands still.
    context.execution_no_progress_timeout_s = -1
    context.max_consecutive_actor_init_deaths = 3
    # An actor counts as fully used with as many shards as it is called for at a time; when a pool
    # grows and shrinks shall not depend on that.
    scaling, names = context.autoscaling_config, ("upscaling", "downscaling")
    thresholds = [f"actor_pool_util_{name}_threshold" for name in names]
    lower = {name: getattr(scaling, name) / SHARDS_AT_A_TIME for name in thresholds}
    context.autoscaling_config = dataclasses.replace(scaling, **lower)
    where = {"label_selector": dict(need.labels)} if need.labels else {}
    gpu = {"num_gpus": need.each["GPU"]} if "GPU" in need.each else {}
    ray_private.spare_data_statistics()
    num_blocks = -(-len(shards) // shards_a_block(len(shards), sum(shards.values()), most))
    with ray.data.DataContext.current(context):
        return ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=num_blocks
        ).map_batches(
            ShardScorer,
            fn_constructor_args=(task, board),
            batch_size=-(-len(shards) // num_blocks),  # a whole block
            compute=ray.data.ActorPoolStrategy(
                min_size=least,
                max_size=most,
                initial_size=first,
                max_concurrent_calls_per_actor=SHARDS_AT_A_TIME,
                # More would wait at an actor while another one has nothing to do.
                max_tasks_in_flight_per_actor=SHARDS_AT_A_TIME,
                enable_true_multi_threading=True,
            ),
            num_cpus=need.each["CPU"],
            **gpu,
            **where,
        )


def pool_statuses(
    config: ScoreConfig,
    task: ScoreTask,
    board: Any,
    shards: Mapping[str, int],
    aside: Sequence[Place] = (),
) -> Generator[ShardStatus | None, None, None]:
    """Yields the status of each shard as it comes, and None at least twice a second.

    Args:
        config: As of `score`.
        task: As of `score`.
        board: Of `start_board`.
        shards: What is scored, and how many examples each holds.
        aside: Places that are set aside.

    Ray Data restarts dead actors and tries their shards again without end; the board bounds it.
    Its rows come on a thread, so that the caller is never held up by a cluster that stands still.
    Close it where it is left before its end: Ray Data would go on while Ray is shut down.

    Raises:
        RaygradError: The job itself failed.
    """
    statuses = _job(config, task, board, shards, aside)
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

    others = threading.enumerate()
    thread = threading.Thread(target=drain, daemon=True, name="raygrad-score")
    thread.start()
    try:
        yield from _taken(ready)
    finally:
        stopped.set()
        ray_private.end_data_execution(thread, others, _ENDED_WITHIN_S)


def _taken(ready: "queue.Queue[Any]") -> Iterator[ShardStatus | None]:
    """Yields what comes until None does, and None while nothing comes.

    Raises:
        RaygradError: What came is an error.
    """
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
