"""Streaming a split in batches: split by rank and worker, every example once an epoch.

The index gives the count of every shard, so that examples and not shards are dealt out: two ranks
may begin and end within one tar, and no rank gets a batch more than another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from raygrad.data.index import Index
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.reading import EncodedExample, read_rows
from raygrad.errors import ConfigError, DataError

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class StreamedBatch:
    """Decoded examples of one step on one rank."""

    images: torch.Tensor
    """Pixels `[B, C, H, W]`, uint8 where `decode` gives bytes."""
    labels: torch.Tensor
    """Classes, int64 `[B]`."""
    keys: list[str]
    """Keys, B of them."""
    rejects: list[dict[str, str]]
    """Examples of this batch that could not be decoded: shard, key, reason."""


def batch_bounds(num_examples: int, batch_size: int, world_size: int) -> NDArray[np.int64]:
    """Returns where batches begin, over all ranks: every rank the same number of batches.

    Sizes differ by at most one and none is above `batch_size`, so that no example is repeated or
    dropped to make ranks even.

    Args:
        num_examples: Examples an epoch.
        batch_size: The most examples of a batch on one rank.
        world_size: How many ranks there are.

    Returns:
        Positions `[world_size * steps + 1]`, int64; rank r has batches r * steps and on.

    Raises:
        ConfigError: There are fewer examples than ranks.
    """
    if batch_size < 1 or world_size < 1 or num_examples < world_size:
        raise ConfigError(
            f"every rank must have an example and a batch one at least, got {num_examples} "
            f"examples in batches of {batch_size} on {world_size} ranks. Use fewer ranks."
        )
    steps = -(-num_examples // (batch_size * world_size))
    return np.arange(steps * world_size + 1, dtype=np.int64) * num_examples // (steps * world_size)


class ExampleStream(IterableDataset[StreamedBatch]):
    """Batches of a split on one rank, read from its shards in order; for `DataLoader`.

    Use it with ``DataLoader(stream, batch_size=None, num_workers=W)``. An epoch holds every
    example once over all ranks and workers, whatever the numbers of shards, ranks and workers
    are. Batches and their order are a function of (seed, epoch, rank, W).

    Args:
        index: The data set.
        split: "train", "val" or "test".
        decode: From an example and the number of the epoch to an array `[H, W, C]`, all of one
            shape; it raises DataError for an image that cannot be used.
        batch_size: The most examples of a batch.
        rank: This process among `world_size`.
        world_size: How many processes there are.
        seed: Changes the order of shards and the shuffle.
        shuffle_buffer: How many encoded images a worker mixes; 0 keeps the order of the shards,
            and the order of shards that of the index.
    """

    def __init__(
        self,
        index: Index,
        split: str,
        decode: Callable[[EncodedExample, int], NDArray[np.uint8]],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle_buffer: int = 0,
    ) -> None:
        super().__init__()
        self._index, self._rows, self._decode = index, index.rows(split), decode
        self._rank, self._world_size = rank, world_size
        self._seed, self._shuffle_buffer = seed, shuffle_buffer
        self._bounds = batch_bounds(self._rows.num_rows, batch_size, world_size)
        self._epoch = 0

    @property
    def num_batches(self) -> int:
        """Batches an epoch on this rank, the same on every rank."""
        return (len(self._bounds) - 1) // self._world_size

    def __len__(self) -> int:
        return self.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration; call it before every epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[StreamedBatch]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        ends = np.arange(num_workers + 1) * self.num_batches // num_workers
        batches = self._rank * self.num_batches + ends[worker : worker + 2]
        bounds = self._bounds[batches[0] : batches[1] + 1]
        examples = self._examples(self._order()[bounds[0] : bounds[-1]])
        if self._shuffle_buffer:
            generator = np.random.default_rng([self._seed, self._epoch, self._rank, worker])
            examples = _shuffled(examples, self._shuffle_buffer, generator)
        for size in np.diff(bounds).tolist():
            yield self._batch([next(examples) for _ in range(size)])

    def _order(self) -> NDArray[np.int64]:
        """Returns the rows of an epoch: shard by shard, each in its own order."""
        codes = self._rows["shard"].combine_chunks().dictionary_encode()
        place = np.arange(len(codes.dictionary))
        if self._shuffle_buffer:
            np.random.default_rng([self._seed, self._epoch]).shuffle(place)
        return np.lexsort([self._rows["offset"].to_numpy(), place[codes.indices.to_numpy()]])

    def _examples(self, positions: NDArray[np.int64]) -> Iterator[EncodedExample]:
        for at in range(0, len(positions), _ROWS_AT_ONCE):
            chosen = pa.array(positions[at : at + _ROWS_AT_ONCE])
            yield from read_rows(self._index, self._rows.take(chosen))

    def _batch(self, examples: list[EncodedExample]) -> StreamedBatch:
        images, labels, keys, rejects = [], [], [], []
        for example in examples:
            try:
                pixels = self._decode(example, self._epoch)
            except DataError as error:
                values = (example.shard, example.key, str(error))
                rejects.append(dict(zip(REJECT_SCHEMA.names, values, strict=True)))
                continue
            images.append(np.moveaxis(pixels, -1, 0))
            labels.append(example.label)
            keys.append(example.key)
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise DataError(
                f"images of a batch must have one size, got {sorted(shapes)[:3]}. "
                "Decode with a transform that crops."
            )
        stacked = np.stack(images) if images else np.empty((0, 0, 0, 0), np.uint8)
        return StreamedBatch(
            torch.from_numpy(stacked), torch.tensor(labels, dtype=torch.int64), keys, rejects
        )


def _shuffled(
    examples: Iterator[EncodedExample], buffer_size: int, generator: np.random.Generator
) -> Iterator[EncodedExample]:
    """Mixes examples through a buffer; all of them come out, once each."""
    buffer: list[EncodedExample] = []
    for example in examples:
        buffer.append(example)
        if len(buffer) >= buffer_size:
            yield _taken(buffer, generator)
    while buffer:
        yield _taken(buffer, generator)


def _taken(buffer: list[EncodedExample], generator: np.random.Generator) -> EncodedExample:
    at = int(generator.integers(len(buffer)))
    buffer[at], buffer[-1] = buffer[-1], buffer[at]
    return buffer.pop()
