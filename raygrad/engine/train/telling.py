"""Who is told how a training goes: its driver's progress line and its trackers."""

import time
from collections.abc import Callable
from typing import Any, Self

from ray.util import metrics

from raygrad.config import TrainConfig
from raygrad.training import ranks
from raygrad.training.loop import TrainingLoop
from raygrad.training.trackers import Trackers

NOTE_S = 30.0
"""Within an epoch, which may take hours, the driver is told this often."""


def warner(board: Any, loop: TrainingLoop) -> Callable[[str], None]:
    """Returns what tells who started a training of something: workers' logs stay in Ray's files."""

    def warn(text: str) -> None:
        board.reach.remote(loop.outcome.epoch, text)

    return warn


class Telling:
    """Tells of a training's steps and epochs, and, left as a context, of how it ended.

    On ranks other than the first it does nothing.

    Args:
        loop: The training, at the epoch from which it goes on.
        board: The handle of the driver's `Board`.
        config: `track` names the trackers.
        digest: Names the training to its trackers.
        folder: Where TensorBoard's files go.
    """

    def __init__(
        self, loop: TrainingLoop, board: Any, config: TrainConfig, digest: str, folder: str
    ) -> None:
        self._is_first = ranks.rank() == 0
        if not self._is_first:
            return
        self._board = board
        self._batch_size = config.batch_size
        self._last_step, self._last_s = loop.outcome.step, time.monotonic()
        epoch = loop.outcome.epoch
        board.reach.remote(epoch, "")
        begins = f"{ranks.world_size()} workers begin after epoch {epoch}"
        board.reach.remote(epoch, begins)  # a note alone, which is told at once

        self._trained = metrics.Counter(
            "raygrad_images_trained", "Images trained on, over all epochs of a training."
        )
        self._accuracy = metrics.Gauge(
            "raygrad_val_accuracy", "Validation accuracy after the last epoch of a training."
        )
        self._trackers = Trackers(config, digest, folder, epoch, warner(board, loop))

    def after_step(self, loop: TrainingLoop) -> None:
        """Tells, where it is time to, how far the epoch is; its last step is the epoch's own."""
        if not self._is_first or time.monotonic() - self._last_s < NOTE_S:
            return
        out, of = loop.outcome, loop.steps_per_epoch
        rate = (out.step - self._last_step) / (time.monotonic() - self._last_s)
        step = out.step % of
        text = f"epoch {out.epoch + 1}, step {step} of {of}, {rate * self._batch_size:.4g} images/s"
        self._board.reach.remote(out.epoch, f"{text}, {(of - step) / rate:.0f} s left of the epoch")
        self._last_step, self._last_s = out.step, time.monotonic()

    def after_epoch(self, loop: TrainingLoop, num_examples: int) -> None:
        """Tells of the epoch that ended, in which so many examples were seen."""
        if not self._is_first:
            return
        self._last_step, self._last_s = loop.outcome.step, time.monotonic()
        last = loop.outcome.history[-1]
        rate = num_examples / last["epoch_time_s"]
        accuracy = last.get("val_accuracy", loop.outcome.best_val_accuracy)
        note = f"{rate:.4g} images/s, validation accuracy {accuracy:.4f}"
        self._board.reach.remote(loop.outcome.epoch, note)
        self._trained.inc(num_examples)
        self._accuracy.set(accuracy)
        self._trackers.log(last)

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the telling; an error that comes by means that the training failed."""
        if self._is_first:
            self._trackers.close(failed=kind is not None)
