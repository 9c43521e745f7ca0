"""An epoch over shards: every example exactly once, and as many batches on every rank."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.index import Index
from raygrad.data.range_reads import read_rows
from raygrad.errors import ConfigError

WINDOW = 1024
"""Examples that are read together and, when shuffling, mixed: bounds memory."""


@dataclass(frozen=True)
class Consumer:
    """One of those who share an epoch: a loader's worker on a rank."""

    rank: int = 0
    """Of the training process."""
    world_size: int = 1
    """Training processes."""
    worker: int = 0
    """Of the rank's loader."""
    num_workers: int = 1
    """Workers of each rank's loader."""

    @property
    def number(self) -> int:
        """Its place among all consumers."""
        return self.rank * self.num_workers + self.worker

    @property
    def count(self) -> int:
        """The number of all consumers."""
        return self.world_size * self.num_workers


def num_batches(num_examples: int, batch_size: int, consumer: Consumer) -> int:
    """Returns the batches that each consumer yields in an epoch, the same for all of them.

    Args:
        num_examples: Of the whole epoch.
        batch_size: The most examples in a batch.
        consumer: Any of them.

    Raises:
        ConfigError: There are too few examples for every consumer to have one in every batch.
    """
    most = -(-num_examples // consumer.count)
    count = -(-most // batch_size)
    if num_examples // consumer.count < max(count, 1):
        raise ConfigError(
            f"every worker of every rank must have an example in each batch, got {num_examples} "
            f"examples for {consumer.count} workers and batches of {batch_size}. "
            "Take fewer workers or larger batches."
        )
    return count


def epoch_batches(
    index: Index,
    split: str,
    *,
    batch_size: int,
    consumer: Consumer = Consumer(),
    seed: int | None = None,
    epoch: int = 0,
) -> Iterator[list[tuple[dict[str, Any], bytes]]]:
    """Yields a consumer's batches of an epoch: rows of the index and the bytes of their images.

    The consumers divide the epoch by examples, not by shards: each takes a stretch of equal
    length, which may begin and end within a shard, and reads no more than that. All have the same
    number of batches, whose sizes differ by one at most; so no rank waits for another, and none is
    padded or cut.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        batch_size: The most examples in a batch.
        consumer: Who reads; by default the only one.
        seed: Shuffles shards, and examples within windows of 1,024; by default nothing is.
        epoch: Another epoch is shuffled in another way.

    Raises:
        ConfigError: There are too few examples for so many consumers.
        DataError: A shard changed since it was indexed.
    """
    rows = index.rows(split)
    count = num_batches(rows.num_rows, batch_size, consumer)
    order = _epoch_order(rows, seed, epoch)
    bounds = np.arange(consumer.count + 1) * rows.num_rows // consumer.count
    mine = order[bounds[consumer.number] : bounds[consumer.number + 1]]
    examples = _read(index, rows, mine, seed, epoch)
    sizes = np.diff(np.arange(count + 1) * len(mine) // count)
    for size in sizes.tolist():
        yield list(itertools.islice(examples, size))


def _epoch_order(rows: pa.Table, seed: int | None, epoch: int) -> NDArray[np.int64]:
    """Returns positions by shard and offset, the shards shuffled if there is a seed."""
    shards = rows["shard"].combine_chunks().dictionary_encode().indices.to_numpy()
    if seed is not None and len(shards):
        shards = np.random.default_rng([seed, epoch]).permutation(shards.max() + 1)[shards]
    return np.lexsort((rows["offset"].to_numpy(), shards))


def _read(
    index: Index, rows: pa.Table, order: NDArray[np.int64], seed: int | None, epoch: int
) -> Iterator[tuple[dict[str, Any], bytes]]:
    for begin in range(0, len(order), WINDOW):
        window = order[begin : begin + WINDOW]
        examples = read_rows(index, rows.take(pa.array(window)))
        if seed is None:
            yield from examples
            continue
        held = list(examples)
        mix = np.random.default_rng([seed, epoch, int(window[0])])
        for at in mix.permutation(len(held)).tolist():
            yield held[at]
