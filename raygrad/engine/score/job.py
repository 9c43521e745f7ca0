"""Scoring a data set with Ray Data: every shard once, whatever dies, one committed part a shard."""

import contextlib
import functools
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from raygrad.config import DEFAULT_WAIT_S, ScoreConfig
from raygrad.data.shard_rows import shard_facts
from raygrad.engine.parallel import ray_map
from raygrad.engine.score.board import start_board
from raygrad.engine.score.finite import NotFinite
from raygrad.engine.score.pool import actor_need, pool_statuses
from raygrad.engine.score.rounds import Rounds
from raygrad.engine.score.task import ENDING, SPLIT, ScoreTask, ShardStatus
from raygrad.engine.score.watch import Watch
from raygrad.engine.waiting import wait_for
from raygrad.errors import (
    ConfigError,
    DataError,
    IncompleteError,
    RaygradError,
    StorageAwayError,
    StorageRefusedError,
)
from raygrad.runs import score_table
from raygrad.runs.part_list import PartFacts, write_part_list
from raygrad.runs.reject_table import settle_rejects
from raygrad.storage import files
from raygrad.storage.manifest import write_json
from raygrad.training.arithmetic import tell_arithmetic

log = logging.getLogger("raygrad")

FAILURES = "_failures.json"
MAX_TRIES = 3
"""A shard whose scoring failed is tried by as many pools of actors."""

_Files = Mapping[str, tuple[int, str]]
"""Size and version of files, by name."""

_NUM_NAMED = 5
_LIST_S = 300.0
"""Seconds between two writings of the list of parts."""


@dataclass
class _Tally:
    """What the driver keeps of a job: what each part says, nothing of an example with scores."""

    parts: dict[str, PartFacts] = field(default_factory=dict)
    used: int = 0
    device_s: float = 0.0
    scored: int = 0
    rejects: list[dict[str, str]] = field(default_factory=list)
    not_finite: NotFinite = field(default_factory=NotFinite)
    failures: dict[str, str] = field(default_factory=dict)
    devices: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    most_actors: int = 0
    aside: list[str] = field(default_factory=list)

    @property
    def settled(self) -> int:
        """Examples that have scores or were rejected."""
        return self.used + len(self.rejects)

    def add(self, shard: str, facts: PartFacts) -> None:
        self.parts[shard] = facts
        self.used += facts.num_used
        self.devices[facts.device or "not recorded"] += 1
        self.device_s += facts.time_s
        self.rejects += facts.rejects
        self.not_finite.add(shard, facts.num_used, facts.not_finite)


def score(config: ScoreConfig, task: ScoreTask, wait_s: float = DEFAULT_WAIT_S) -> dict[str, Any]:
    """Scores every shard that has no part yet, with a pool of actors.

    Args:
        config: How many actors, and what they may cost.
        task: What is scored with what, and where the parts go.
        wait_s: How long room for an actor is waited for while none works.

    Returns:
        Facts for the completion marker: shards, examples used and rejected.

    Raises:
        ResourceError: The cluster cannot hold an actor.
        ConfigError: The output is not writable, or holds scores that came from something else.
        TooManyRejectsError: More images cannot be decoded than is accepted, or all of them.
        IncompleteError: A shard was given up, or nothing moves; what is scored is kept.
        DataError: No score of a column is a number; the table is there all the same.
    """
    start_s = time.monotonic()
    shards = shard_facts(task.data_url, SPLIT)
    _claim(task)
    tally = _Tally()
    # A folder of very many parts is listed before they are scored and after, and not in between.
    there = score_table.files_of(task.out_url)
    todo = _without_parts(task, shards, tally, there)
    if todo and len(todo) < len(shards):
        log.info(
            "score: %d of %d shards have their part already", len(shards) - len(todo), len(shards)
        )
    if todo:
        tell_arithmetic("score", task.numerics, task.device != "cpu")
        try:
            _score_all(config, task, shards, todo, tally, wait_s)
        except ConfigError:  # the network or the loss is refused
            score_table.release_unused(task.out_url)
            raise
        there = score_table.files_of(task.out_url)
    write_part_list(task.out_url, task.provenance, tally.parts, there)
    if tally.failures:
        raise _incomplete(task, tally, len(shards))
    counts = {name: count for name, (count, _) in shards.items()}
    _check(task, counts, tally, there)
    _forget_failures(task)
    settle_rejects("score", task.out_url, tally.rejects, tally.used, task.max_reject_share)
    metrics = _metrics(config, task, tally, time.monotonic() - start_s)
    write_json(files.join(task.out_url, "metrics.json"), metrics)
    facts = _mark_complete(task, shards, tally)
    others = functools.partial(ray_map, nodes=config.nodes, cpus=0.0, stage="score", wait_s=wait_s)
    score_table.gather(task.out_url, there, tally.parts, others)
    _summary(metrics)
    tally.not_finite.conclude(tally.used, task.networks, task.out_url)
    return {"num_shards": len(shards), **facts}


def _claim(task: ScoreTask) -> None:
    try:
        score_table.bind_table(task.out_url, task.provenance)
    except OSError as error:
        raise ConfigError(
            f"the output must be writable, got {error}, in {task.out_url}. "
            "Name another --run, or make room."
        ) from error


def _without_parts(
    task: ScoreTask, shards: dict[str, tuple[int, str]], tally: _Tally, there: _Files
) -> list[str]:
    """Returns the shards without a part; what the parts that are there hold goes to the tally.

    Raises:
        ConfigError: A part is of other rows than the index's now.
        DataError: A part does not hold its shard's examples.
    """
    found = score_table.finished_parts(task.out_url, task.provenance, there)
    for shard, (count, rows_digest) in shards.items():
        facts = found.get(shard)
        if facts is None:
            continue
        part = score_table.part_url(task.out_url, shard)
        if facts.rows_digest != rows_digest:
            raise ConfigError(
                f"a part must be of the shard as it is indexed, got another, in "
                f"{part}. Remove it to score the shard again."
            )
        settled = facts.num_used + len(facts.rejects)
        if settled != count:
            raise DataError(
                f"a part must hold its shard's {count} examples, got {settled}, in {part}. "
                "Remove it to score the shard again."
            )
        tally.add(shard, facts)
    return [shard for shard in shards if shard not in found]


def _score_all(
    config: ScoreConfig,
    task: ScoreTask,
    shards: dict[str, tuple[int, str]],
    todo: list[str],
    tally: _Tally,
    wait_s: float,
) -> None:
    """Scores shards; those whose scoring failed go to another pool, `MAX_TRIES` in all.

    Those that a place gave back, which was set aside meanwhile, go to it too, and count no try.
    """
    sizes = {shard: shards[shard][0] for shard in todo}
    need = actor_need(config, task)
    wait_for("score", need, wait_s)
    board = start_board(need, wait_s, len(tally.parts))
    watch = Watch(board, task, need, wait_s, sum(sizes.values()))
    before = tally.settled
    rounds, listed_s = Rounds(MAX_TRIES), time.monotonic()
    while sizes:
        statuses = pool_statuses(config, task, board, sizes, watch.trouble.aside)
        with contextlib.closing(statuses):  # also where this is left by Ctrl-C, before Ray ends
            for status in statuses:
                if status is None or status.kind in ENDING or watch.is_due:
                    watch.look(rounds.num_failed, len(tally.rejects), tally.settled - before)
                    listed_s = _list_parts(task, tally, listed_s)
                if status is not None:
                    _settle(status, shards[status.shard][1], rounds, tally)
        state = watch.look(rounds.num_failed, len(tally.rejects), tally.settled - before)
        tally.retries, tally.aside = state.retries + rounds.num_failed, watch.trouble.lines
        tally.most_actors = watch.most_actors
        sizes = {shard: shards[shard][0] for shard in rounds.again()}
        if sizes:
            log.warning("score: %d shards are tried again", len(sizes))
            ray.get(board.new_pool.remote())


def _list_parts(task: ScoreTask, tally: _Tally, last_s: float) -> float:
    """Lists the parts now and then, for a job that goes on after this driver; returns when."""
    if time.monotonic() - last_s < _LIST_S:
        return last_s
    with contextlib.suppress(StorageAwayError, StorageRefusedError):  # actors wait for it
        write_part_list(task.out_url, task.provenance, tally.parts)
    return time.monotonic()


def _settle(status: ShardStatus, rows_digest: str, rounds: Rounds, tally: _Tally) -> None:
    """Takes a status to the tally, or to the shards that are tried again.

    Raises:
        IncompleteError: Storage was waited for in vain.
        RaygradError: No shard will fare better.
    """
    if status.kind in ("done", "found"):
        rounds.moved()
        tally.scored += status.used if status.kind == "done" else 0
        facts = PartFacts(
            status.time_s,
            status.used,
            json.loads(status.rejects),
            rows_digest,
            json.loads(status.not_finite),
            status.device,
        )
        tally.add(status.shard, facts)
    elif status.kind == "fatal":
        raise RaygradError(f"scoring cannot go on: {status.error} Parts that are there are kept.")
    elif status.kind == "away":
        raise IncompleteError(
            f"storage must give what it is asked for, got {status.error} "
            "Parts that are there are kept: run again when it does."
        )
    elif status.kind == "returned":
        rounds.returned(status.shard)
    elif status.kind == "failed" and rounds.failed(status.shard):
        log.warning("score: %s failed: %s", status.shard, status.error)
    else:
        rounds.moved()
        log.error("score: %s is given up: %s", status.shard, status.error)
        tally.failures[status.shard] = status.error


def _incomplete(task: ScoreTask, tally: _Tally, num_shards: int) -> IncompleteError:
    write_json(files.join(task.out_url, FAILURES), tally.failures)
    named = list(tally.failures.items())[:_NUM_NAMED]
    more = len(tally.failures) - len(named)
    return IncompleteError(
        f"every shard must be scored, got {len(tally.failures)} of {num_shards} that failed: "
        + "; ".join(f"{shard}: {reason}" for shard, reason in named)
        + (f"; and {more} more in {FAILURES}" if more else "")
        + "".join(f"; set aside: {line}" for line in tally.aside)
        + ". Mend what is wrong and run again; finished shards are kept."
    )


def _forget_failures(task: ScoreTask) -> None:
    """Says that none is left, where an earlier run gave shards up."""
    url = files.join(task.out_url, FAILURES)
    if files.exists(url):
        write_json(url, {})


def _check(task: ScoreTask, counts: dict[str, int], tally: _Tally, there: _Files) -> None:
    """Raises unless every shard has its part and used + rejected is the index."""
    lacking = [s for s in counts if score_table.part_name(s) not in there]
    if lacking:
        raise IncompleteError(
            f"every shard must have its part, got none for {lacking[:_NUM_NAMED]}. Run again."
        )
    if tally.used + len(tally.rejects) != sum(counts.values()):
        raise DataError(
            f"used + rejected must be the index's {sum(counts.values())} examples, "
            f"got {tally.used} + {len(tally.rejects)}. Remove {task.out_url} and score again."
        )


def _mark_complete(task: ScoreTask, shards: Iterable[str], tally: _Tally) -> dict[str, Any]:
    """Writes the table's manifest; returns what it says of the examples."""
    facts: dict[str, Any] = {"num_examples": tally.used, "rejected": len(tally.rejects)}
    if tally.not_finite.counts:
        facts["not_finite"] = dict(tally.not_finite.counts)
    score_table.write_manifest(
        task.out_url,
        list(shards),
        task.provenance,
        tally.device_s,
        numerics=task.numerics,
        devices=dict(sorted(tally.devices.items())),
        **facts,
    )
    return facts


def _metrics(config: ScoreConfig, task: ScoreTask, tally: _Tally, wall_s: float) -> dict[str, Any]:
    examples = tally.used + len(tally.rejects)
    device_s_per_million = tally.device_s / max(examples, 1) * 1e6
    metrics: dict[str, Any] = {
        "device": task.device,
        "numerics": task.numerics,
        "num_checkpoints": len(task.networks),
        "num_examples": tally.used,
        "rejected": len(tally.rejects),
        "not_finite": dict(tally.not_finite.counts),
        "scored_now": tally.scored,
        "wall_time_s": wall_s,
        "images_per_s": tally.scored / wall_s,
        "device_time_s": tally.device_s,
        "device_s_per_million": device_s_per_million,
        "most_actors": tally.most_actors,
        "retries": tally.retries,
        "set_aside": tally.aside,
    }
    if config.price_per_hour:
        metrics["cost_per_million"] = device_s_per_million / 3600 * config.price_per_hour
    return metrics


def _summary(metrics: dict[str, Any]) -> None:
    cost = metrics.get("cost_per_million")
    log.info(
        "score: %d examples, %d rejected, %d retries, %.1f %s-seconds (%.0f a million examples%s)"
        "%s",
        metrics["num_examples"],
        metrics["rejected"],
        metrics["retries"],
        metrics["device_time_s"],
        metrics["device"],
        metrics["device_s_per_million"],
        "" if cost is None else f", cost {cost:.2f}",
        "".join(f"; set aside: {line}" for line in metrics["set_aside"]),
    )
