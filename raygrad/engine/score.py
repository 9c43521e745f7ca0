"""Scoring with Ray Data: one row a shard, a pool of actors, one committed part a shard."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import torch
from numpy.typing import NDArray

from raygrad.config import ScoreConfig
from raygrad.data import score_table, storage
from raygrad.data.arrays import ImageArrays, load_arrays
from raygrad.data.index import read_index
from raygrad.data.transforms import CropTransform
from raygrad.engine.session import fitting_workers
from raygrad.errors import DataError, IncompleteError, RaygradError
from raygrad.progress import Progress
from raygrad.scoring import GRAD_COLUMNS, GradNormScorer, example_scores
from raygrad.training.checkpoints import load_checkpoint

log = logging.getLogger("raygrad")

# A pool that takes every CPU hangs as soon as another operator needs one.
CPUS_PER_ACTOR = 0.9
# Ray Data restarts a dead actor for ever; a shard that kills its actor is given up after these.
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class ScoreTask:
    """All that an actor needs to score a shard; paths, not weights, so that any node can."""

    data_url: str
    """The folder of the index."""
    checkpoint_url: str
    """The network."""
    out_url: str
    """The folder of the score table."""
    channels: int
    """Colour channels that images are decoded to."""
    transform: CropTransform | None
    """How images become squares of one size; None leaves them as they are."""
    columns: tuple[str, ...]
    """The scores to compute."""
    batch_size: int
    """Examples a forward pass."""
    provenance: dict[str, str]
    """What the scores come from; it travels with every part."""
    attempts_url: str
    """Where an actor notes that it begins a shard, so that one that kills its actors is known."""


class ShardScorer:
    """A Ray Data actor that scores one shard at a time and commits its part.

    What fails inside a shard becomes that shard's status, so that one bad shard never ends the
    job; the part is the completion marker.
    """

    def __init__(self, task: ScoreTask) -> None:
        torch.set_num_threads(1)
        self._task = task
        self._index = read_index(task.data_url)
        checkpoint = load_checkpoint(task.checkpoint_url)
        self._normalize = checkpoint.normalize
        grad_columns = tuple(c for c in task.columns if c in GRAD_COLUMNS)
        self._scorer = GradNormScorer(checkpoint.build(), grad_columns)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Scores the shards of a batch; returns a status row for each."""
        rows = [self._status(str(shard)) for shard in batch["shard"]]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _status(self, shard: str) -> dict[str, Any]:
        prefix = f"{shard}."
        begun = storage.list_files(self._task.attempts_url, ".attempt")
        attempt = sum(url.rsplit("/", 1)[-1].startswith(prefix) for url in begun) + 1
        if attempt > MAX_ATTEMPTS:
            reason = f"its actor died {MAX_ATTEMPTS} times"
            return {"shard": shard, "used": 0, "rejected": 0, "error": reason}
        storage.write_bytes(
            storage.join(self._task.attempts_url, f"{prefix}{attempt}.attempt"), b""
        )
        try:
            used, rejected = self._score(shard)
        except Exception as error:  # noqa: BLE001 - reports instead of dying; the reason is kept
            return {"shard": shard, "used": 0, "rejected": 0, "error": f"{error!r}"}
        return {"shard": shard, "used": used, "rejected": rejected, "error": ""}

    def _score(self, shard: str) -> tuple[int, int]:
        start_s = time.monotonic()
        task = self._task
        arrays = load_arrays(
            self._index, "train", channels=task.channels, shard=shard, transform=task.transform
        )
        used, rejected = len(arrays.labels), arrays.rejects.num_rows
        indexed = self._index.counts("train")[shard]
        if used + rejected != indexed:
            raise DataError(
                f"used + rejected must be the index's {indexed} examples, got {used} + {rejected} "
                f"in {shard}. Index the data set again."
            )
        table = self._table(shard, arrays)
        time_s = time.monotonic() - start_s
        score_table.write_part(self._task.out_url, shard, table, self._task.provenance, time_s)
        return used, rejected

    def _table(self, shard: str, arrays: ImageArrays) -> pa.Table:
        size = self._task.batch_size
        batches = [
            self._batch(arrays.images[start : start + size], arrays.labels[start : start + size])
            for start in range(0, len(arrays.labels), size)
        ]
        columns: dict[str, Any] = {
            "key": arrays.keys,
            "shard": pa.array([shard] * len(arrays.labels), pa.string()),
            "label": pa.array(arrays.labels),
        }
        for name in batches[0]:
            columns[name] = np.concatenate([batch[name] for batch in batches])
        return pa.table(columns)

    def _batch(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        targets = torch.from_numpy(labels)
        found = self._scorer.score(self._normalize(torch.from_numpy(images)), targets)
        scores = {**example_scores(found.logits, targets), **found.norms}
        wanted = (*self._task.columns, "prediction", "correct")
        return {name: scores[name].cpu().numpy() for name in wanted}


def score(config: ScoreConfig, task: ScoreTask) -> dict[str, Any]:
    """Scores every shard that has no part yet, with a pool of actors.

    Args:
        config: How many actors.
        task: What is scored with what, and where the parts go.

    Returns:
        Facts for the completion marker: shards, examples used and rejected.

    Raises:
        ResourceError: No CPU is there for an actor.
        IncompleteError: A shard failed; the others' parts are kept.
    """
    index = read_index(task.data_url)
    counts = index.counts("train")
    done = score_table.finished_shards(task.out_url, task.provenance)
    todo = [{"shard": shard} for shard in counts if shard not in done]
    if done:
        log.info("score: %d of %d shards have their part already", len(done), len(counts))
    rejected, failures = 0, {}
    if todo:
        progress = Progress("score", sum(counts[row["shard"]] for row in todo), "images")
        for status in _run_pool(config, task, todo):
            rejected += int(status["rejected"])
            if status["error"]:
                failures[status["shard"]] = status["error"]
            progress.add(counts[status["shard"]])
    if failures:
        raise IncompleteError(
            f"every shard must be scored, got {len(failures)} of {len(counts)} that failed: "
            + "; ".join(f"{shard}: {reason}" for shard, reason in failures.items())
            + ". Mend what is wrong and run again; finished shards are kept."
        )
    time_s = sum(score_table.finished_shards(task.out_url, task.provenance).values())
    score_table.write_manifest(task.out_url, list(counts), task.provenance, time_s)
    return {"num_shards": len(counts), "num_examples": sum(counts.values()), "rejected": rejected}


def _run_pool(config: ScoreConfig, task: ScoreTask, todo: list[dict[str, str]]) -> Any:
    """Yields the status row of each shard as its part is committed."""
    actors = min(fitting_workers(config.num_actors, "scoring actors", CPUS_PER_ACTOR), len(todo))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    statuses = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
        ShardScorer,
        fn_constructor_args=(task,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        num_cpus=CPUS_PER_ACTOR,
    )
    try:
        yield from statuses.iter_rows()
    except ray.exceptions.RayError as error:
        raise RaygradError(f"scoring actors must live, got {error}. Run again to go on.") from error
