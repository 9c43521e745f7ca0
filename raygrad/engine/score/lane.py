"""The order in which the shards of an actor pass: one is scored while the next one is decoded."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import final

from raygrad.data.reading import EncodedExample
from raygrad.engine.score.batches import Decode, DecodedBatch, batches_of
from raygrad.engine.score.uploading import Uploader

BATCHES_AHEAD = 2
"""Decoded batches that wait for the network, at most, of whichever shards: they bound memory."""

_POLL_S = 0.5


def _nothing() -> None:
    """Is what a shard does while it waits, where nobody watches it."""


@final
class InOrder:
    """Lets the holders of the numbers 0, 1, 2, ... through, one at a time and in that order."""

    def __init__(self) -> None:
        self._next, self._left = 0, set[int]()
        self._changed = threading.Condition()

    def wait(self, number: int, waiting: Callable[[], None]) -> None:
        """Returns when all lower numbers have left; calls `waiting` twice a second until then."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._next == number, _POLL_S):
                waiting()

    def leave(self, number: int) -> None:
        """Lets the next number through, once every lower one has left; a turn may never come."""
        with self._changed:
            if number >= self._next:
                self._left.add(number)
            while self._next in self._left:
                self._left.remove(self._next)
                self._next += 1
            self._changed.notify_all()


@final
class DecodeLane:
    """Decodes the shards of an actor one after the other, ahead of their scoring.

    Shards are decoded, and scored, in the order in which they came; the room for decoded batches is
    theirs together, so that two of them hold no more than one alone. None waits for one that came
    after it.
    """

    def __init__(self) -> None:
        self.decoding, self.scoring = InOrder(), InOrder()
        self.room = threading.Semaphore(BATCHES_AHEAD)
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def shard(
        self,
        examples: Iterable[EncodedExample],
        decode: Decode,
        batch_size: int,
        num_threads: int,
        uploader: Uploader | None = None,
    ) -> Iterator["DecodedShard"]:
        """Decodes a shard on a thread of its own while the context lasts.

        Args:
            examples: Encoded examples; they are read on the thread too.
            decode: As of `raygrad.engine.score.batches.batches_of`.
            batch_size: As there.
            num_threads: As there.
            uploader: Begins to copy each batch to the device as soon as it is decoded.
        """
        shard = DecodedShard(self, next(self._numbers))

        def batches() -> Iterator[DecodedBatch]:
            rest = iter(examples)
            # Storage takes its time to answer: it is asked before it is the shard's turn.
            first = list(itertools.islice(rest, 1))
            self.decoding.wait(shard.number, _nothing)
            for batch in batches_of(itertools.chain(first, rest), decode, batch_size, num_threads):
                if uploader is not None and batch.keys:
                    batch.uploaded = uploader.send(batch.images, batch.labels)
                yield batch

        thread = threading.Thread(
            target=shard.fill, args=(batches(),), daemon=True, name="raygrad-decode"
        )
        thread.start()
        try:
            yield shard
        finally:
            shard.stop()
            self.scoring.leave(shard.number)
            thread.join()
            shard.empty()


@final
class DecodedShard:
    """The batches of a shard, some of them decoded ahead; see `DecodeLane.shard`."""

    def __init__(self, lane: DecodeLane, number: int) -> None:
        self.number, self._lane = number, lane
        self._ready: queue.SimpleQueue[DecodedBatch | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def turn(self, waiting: Callable[[], None] = _nothing) -> Iterator[Iterator[DecodedBatch]]:
        """Waits for the shards before it, and gives its batches; the next shard waits meanwhile.

        Args:
            waiting: Called twice a second until it is its turn.

        Raises:
            DataError: In the iterator: images differ in size, or what reading them raised.
        """
        try:
            self._lane.scoring.wait(self.number, waiting)
            yield self._batches()
        finally:
            self._lane.scoring.leave(self.number)

    def fill(self, batches: Iterator[DecodedBatch]) -> None:
        """Makes batches ready as there is room for them, on the thread that decodes."""
        try:
            with contextlib.closing(batches):  # type: ignore[type-var]  # a generator
                for batch in batches:
                    while not self._lane.room.acquire(timeout=_POLL_S):
                        if self._stopped.is_set():
                            return
                    self._ready.put(batch)
                    if self._stopped.is_set():
                        return
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the batch is awaited
            self._ready.put(error)
        finally:
            self._lane.decoding.leave(self.number)

    def stop(self) -> None:
        """Makes the decoding end soon."""
        self._stopped.set()

    def empty(self) -> None:
        """Gives the room of batches back that nobody has taken."""
        with contextlib.suppress(queue.Empty):
            while True:
                if isinstance(self._ready.get_nowait(), DecodedBatch):
                    self._lane.room.release()

    def _batches(self) -> Iterator[DecodedBatch]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            self._lane.room.release()
            yield item


def decoded_batches(
    examples: Iterable[EncodedExample],
    decode: Decode,
    batch_size: int,
    num_threads: int,
    uploader: Uploader | None = None,
) -> Iterator[DecodedBatch]:
    """Yields the batches of one shard alone, decoded ahead; as of `DecodeLane.shard`."""
    with (
        DecodeLane().shard(examples, decode, batch_size, num_threads, uploader) as shard,
        shard.turn() as batches,
    ):
        yield from batches
