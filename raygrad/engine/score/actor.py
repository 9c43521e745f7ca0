"""The scoring actor: streams a shard, scores it while the next one decodes, commits its part."""

import contextlib
import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from ray.util import metrics
from torch import Tensor

from raygrad.data.reading import read_rows
from raygrad.data.shard_rows import ShardRows, rows_digest
from raygrad.engine.relay import tell_to
from raygrad.engine.score.alone import Alone
from raygrad.engine.score.blame import MAX_DEATHS, Place
from raygrad.engine.score.clock import Clock
from raygrad.engine.score.desk import FaultDesk, pauses
from raygrad.engine.score.faults import OutputError, told
from raygrad.engine.score.lane import DecodeLane
from raygrad.engine.score.networks import NetworkScorer
from raygrad.engine.score.task import ENDING, SPLIT, Kind, ScoreTask, ShardStatus, as_batch
from raygrad.engine.score.uploading import Uploader
from raygrad.errors import ConfigError, DataError, RaygradError, ResourceError
from raygrad.runs import score_table
from raygrad.runs.part_list import PartFacts
from raygrad.scoring.memory import batch_size_for, pass_budget
from raygrad.scoring.numerics import computed_by
from raygrad.scoring.verdicts import Verdicts
from raygrad.training.outside import weights_digest

_POST_INTERVAL_S = 0.5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


SHARDS_AT_A_TIME = 2
"""Calls of an actor at the same time: one shard is scored, the next is read and decoded."""


class ShardScorer:
    """A Ray Data actor that scores one shard at a time and commits its part.

    It is called for the next shard meanwhile, which is read and decoded as far as there is room,
    and scored while the part of the first is written. What fails inside a shard becomes that
    shard's status, so that one bad shard never ends the job. An actor that makes no progress ends
    itself: Ray starts another, and the board knows. Shards that were under way when their actor
    ended are under way alone from then on: so it is known which of two it was.

    Args:
        task: What to do.
        board: The driver's board.
    """

    def __init__(self, task: ScoreTask, board: Any) -> None:
        self._task, self._board = task, board
        tell_to(board)
        self._work: ShardWork | None = None
        self._unbuilt: Exception | None = None
        context = ray.get_runtime_context()
        self._id = context.get_actor_id() or ""
        gpus = context.get_accelerator_ids().get("GPU", [])
        self._place = Place(context.get_node_id(), gpus[0] if gpus else "")
        self._desk = FaultDesk(board, self._id, self._place)
        self._alone, self._clock = Alone(), Clock(task.shard_timeout_s)
        self._building = threading.Lock()
        self._suspects = frozenset(ray.get(board.suspects.remote(self._id)))
        self._count = metrics.Counter(
            "raygrad_examples_scored", "Examples scored, again where a shard is begun again."
        )
        self._rate = metrics.Gauge("raygrad_examples_per_s", "Examples a second, of this actor.")
        if not context.was_current_actor_reconstructed:
            self._desk.wait_while_aside()
        # One that was started again has shards already, which it is to give back.
        if ray.get(board.standing.remote(self._id, self._place)) == "work":
            self._build()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Scores the shards of a batch in turn; returns their statuses.

        The last is the one that ends the job, where one does: nothing is tried after it.
        """
        statuses = []
        for shard in map(str, batch["shard"]):
            statuses.append(status := self._status(shard))
            settled = status.used + len(json.loads(status.rejects))
            self._board.end.remote(shard, settled, status.kind in ("done", "found"))
            if status.kind in ENDING:
                break
        return as_batch(statuses)

    def _status(self, shard: str) -> ShardStatus:
        with self._alone.admitted(shard in self._suspects):
            return self._begun(shard)

    def _begun(self, shard: str) -> ShardStatus:
        self._desk.end_if_spoilt()
        while (begun := ray.get(self._board.begin.remote(shard, self._id, self._place))) is None:
            if not self._desk.may_work():
                return ShardStatus(shard, "returned")
        died, verdict = begun
        if verdict != "wait":
            reason = (
                f"its actor died, or made no progress for {self._task.shard_timeout_s:g} s, "
                f"{died} {'time' if died == 1 else 'times'}"
            )
            return ShardStatus(shard, verdict, error=reason)
        with self._clock.watching() as still_alive:
            for pause_s in pauses():
                is_built = False
                try:
                    work = self._built()
                    is_built = True
                    return work.score(shard, self._posting(shard, still_alive))
                except Exception as error:  # noqa: BLE001 - told to the board, which judges it
                    status = self._desk.judged(error, shard, is_built=is_built)
                if status is not None:
                    return status
                still_alive()
                time.sleep(min(pause_s, self._task.shard_timeout_s / 3))
        raise AssertionError("pauses never end")

    def _build(self) -> None:
        """Builds the networks, or keeps why they cannot be."""
        died = ray.get(self._board.build.remote(self._id, self._place))
        try:
            if died >= MAX_DEATHS:
                raise RaygradError(
                    f"actors must live while they are built, got {died} that died of it"
                )
            with self._clock.watching():
                self._work = ShardWork(self._task)
        except Exception as error:  # noqa: BLE001 - told to the board with the first shard
            self._unbuilt = error
        self._board.built.remote(self._id, is_right=self._work is not None)

    def _built(self) -> "ShardWork":
        with self._building:
            if self._work is None and self._unbuilt is None:
                self._build()
            if self._unbuilt is not None:
                error, self._unbuilt = self._unbuilt, None
                raise error
            assert self._work is not None
            return self._work

    def _posting(self, shard: str, still_alive: Callable[[], None]) -> Callable[..., None]:
        """Returns what is called with the examples done, and rejected of them, batch by batch."""
        start_s = last_s = time.monotonic()
        counted = 0

        def post(done: int, rejected: int = 0) -> None:
            nonlocal start_s, last_s, counted
            still_alive()
            now_s = time.monotonic()
            if done == 0:  # it waits for the shard before it
                start_s = now_s
                return
            # Every batch is counted, the board alone is spared: the last one would be left out.
            if done - rejected > counted:
                self._count.inc(done - rejected - counted)
                counted = done - rejected
            if now_s - last_s < _POST_INTERVAL_S:
                return
            last_s = now_s
            self._board.progress.remote(shard, done)
            self._rate.set(done / (now_s - start_s))

        return post


class ShardWork:
    """Scores shards in this process; knows nothing of Ray.

    `score` may be called on two threads: the second shard is then decoded while the first is
    scored, and scored while the first one's part is written.

    Args:
        task: What to do.

    Raises:
        ConfigError: A network cannot be built, or has other weights than it had for the driver.
        ResourceError: There is no GPU where one was asked for.
    """

    def __init__(self, task: ScoreTask) -> None:
        if task.device == "cuda" and not torch.cuda.is_available():
            raise ResourceError("an actor must see its GPU, got none. Use --device cpu.")
        if task.device == "cpu":
            torch.set_num_threads(1)
        self._task, self._computed_by = task, computed_by(task.numerics, task.device)
        self._rows, self._lane = ShardRows(task.data_url), DecodeLane()
        self._lock, self._settled_s = threading.Lock(), 0.0
        networks = [source.build() for source in task.networks]
        for source, network, digest in zip(task.networks, networks, task.digests, strict=True):
            if weights_digest(network) != digest:
                raise ConfigError(
                    f"checkpoint must not change while scores are made from it, got other weights "
                    f"in {source.checkpoint_url or source.network}. Score into another --run."
                )
        spec = task.networks[0].spec
        batch_size = batch_size_for(
            task.batch_size,
            networks[0],
            (spec.channels, spec.height, spec.width),
            task.device,
            task.actors_per_gpu,
        )
        self._uploader = Uploader(task.device)
        is_measured = task.device == "cuda" and not task.batch_size
        budget = pass_budget(task.device, task.actors_per_gpu) if is_measured else None
        self._scorer = NetworkScorer(
            networks,
            task.preprocess.normalize,
            task.columns,
            device=task.device,
            numerics=task.numerics,
            channels_last=task.channels_last,
            batch_size=batch_size,
            features=task.features,
            loss=task.loss,
            budget_bytes=budget,
        )

    def score(self, shard: str, progress: Callable[[int, int], None]) -> ShardStatus:
        """Scores a shard and commits its part, unless it is there.

        Args:
            shard: The shard's name.
            progress: Called with the number of examples done, and of those rejected among them;
                twice a second with none while another shard is scored.

        Raises:
            DataError: used + rejected are not the index's examples.
            OutputError: There is no room, or no right, to write the part.
        """
        task, start_s = self._task, time.monotonic()
        with self._lock:  # one file is read
            index = self._rows.load(shard)
        rows = index.rows(SPLIT)
        digest = rows_digest([rows])
        there = score_table.part_facts(task.out_url, shard, task.provenance)
        if there is not None and there.rows_digest == digest:
            return _status(shard, "found", there)
        found, later = _Found(), Verdicts()
        decoding = self._lane.shard(
            read_rows(index, rows),
            task.preprocess.decode,
            self._scorer.batch_size,
            task.decode_threads,
            self._uploader,
        )
        with decoding as decoded, decoded.turn(lambda: progress(0, 0)) as batches:
            for batch in batches:
                found.rejects += batch.rejects
                if batch.uploaded is not None:
                    tensors = self._uploader.receive(batch.uploaded)
                    found.add(batch.keys, batch.labels, self._scorer.scored(*tensors, later))
                progress(found.num_used + len(found.rejects), len(found.rejects))
        if found.num_used + len(found.rejects) != rows.num_rows:
            raise DataError(
                f"used + rejected must be the index's {rows.num_rows} examples, "
                f"got {found.num_used} + {len(found.rejects)} in {shard}. "
                "Index the data set again."
            )
        scores = self._scorer.collected(found.scores, later) or self._scorer.no_scores()
        time_s = self._spent(start_s)
        with _writing(shard):
            return _status(shard, "done", self._commit(shard, found, scores, digest, time_s))

    def _spent(self, start_s: float) -> float:
        """Returns the seconds of this actor that a shard took, which ends now.

        What it shares with the shard before it is that one's: the times of an actor's shards add
        up to the time that it was at work, and no more.
        """
        with self._lock:
            now_s = time.monotonic()
            spent_s = now_s - max(start_s, self._settled_s)
            self._settled_s = now_s
        return spent_s

    def _commit(
        self,
        shard: str,
        found: "_Found",
        scores: dict[str, NDArray[Any]],
        digest: str,
        time_s: float,
    ) -> PartFacts:
        task = self._task
        vectors = {name: scores.pop(name) for name in score_table.VECTORS if name in scores}
        if vectors:
            # Before the part: a part says that all of its shard is there.
            score_table.write_vectors(task.out_url, shard, found.keys, vectors)
        columns = {
            "key": pa.array(found.keys, pa.string()),
            "shard": pa.array([shard] * found.num_used, pa.string()),
            "label": pa.array(np.concatenate([*found.labels, np.empty(0, np.int64)])),
            **scores,
        }
        table = pa.table(columns)
        score_table.write_part(
            task.out_url,
            shard,
            table,
            task.provenance,
            time_s,
            rejects=found.rejects,
            rows_digest=digest,
            computed_by=self._computed_by,
        )
        not_finite = score_table.count_not_finite(table)
        device = self._computed_by["device"]
        return PartFacts(time_s, found.num_used, found.rejects, digest, not_finite, device)


def _status(shard: str, kind: Kind, part: PartFacts) -> ShardStatus:
    return ShardStatus(
        shard,
        kind,
        part.num_used,
        part.time_s,
        json.dumps(part.rejects),
        json.dumps(part.not_finite),
        device=part.device,
    )


class _Found:
    """The scores of a shard so far: a few numbers an example, on the device."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.labels: list[NDArray[np.int64]] = []
        self.rejects: list[dict[str, str]] = []
        self.scores: list[dict[str, Tensor]] = []

    @property
    def num_used(self) -> int:
        return len(self.keys)

    def add(self, keys: list[str], labels: NDArray[np.int64], scores: dict[str, Tensor]) -> None:
        self.keys += keys
        self.labels.append(labels)
        self.scores.append(scores)


@contextlib.contextmanager
def _writing(shard: str) -> Iterator[None]:
    """Turns what no retry would mend into an error of its own."""
    try:
        yield
    except (OSError, ConfigError) as error:
        if isinstance(error, ConfigError) or error.errno in _NO_ROOM:
            raise OutputError(
                f"the output must be writable, got {told(error)}, for {shard}."
            ) from error
        raise
