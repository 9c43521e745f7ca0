"""Which examples a step takes: a shuffle per epoch, of all or through a buffer, cut evenly."""

import numpy as np
from numpy.typing import NDArray

_BUFFERED = 0xB0F
"""Keeps the draws of a buffered order apart from those of a whole one, which share a seed."""
_RUNS = 256
"""A full buffer is mixed from about so many places of the data set."""


class DataOrder:
    """The order of training examples as a function of (seed, step) alone.

    Nothing has to be saved to go on in the middle: the step is the position. Over all ranks every
    example is taken exactly once an epoch, and each rank takes the same number of steps. Batches of
    an epoch differ by one example at most: cut to full batches and a rest, 54,017 examples by 128
    would end every epoch in an update, at the full learning rate, by a single example.

    Args:
        num_examples: Examples an epoch, at least 1.
        batch_size: Examples a step over all ranks, at most.
        seed: Changes the order.
        buffer_size: Examples that are mixed with each other, see `epoch_order`; 0 for all.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int, buffer_size: int = 0) -> None:
        self._num_examples, self._batch_size, self._seed = num_examples, batch_size, seed
        self._buffer_size = buffer_size
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example is taken once."""
        return -(-self._num_examples // self._batch_size)

    def epoch_of(self, step: int) -> int:
        """Returns which pass over the examples a step is in, counted from 0."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> NDArray[np.int64]:
        """Returns the positions of the global batch of a step, counted from 0 over all epochs."""
        epoch, index = self.epoch_of(step), step % self.steps_per_epoch
        if epoch != self._epoch:
            self._permutation = epoch_order(
                self._num_examples, self._seed, epoch, self._buffer_size
            )
            self._epoch = epoch
        start, end = (i * self._num_examples // self.steps_per_epoch for i in (index, index + 1))
        return self._permutation[start:end]


def epoch_order(
    num_examples: int, seed: int, epoch: int, buffer_size: int = 0
) -> NDArray[np.int64]:
    """Returns the order of the examples in an epoch: each once, a function of the arguments alone.

    By default, and with a buffer that holds them all, any order is as likely as any other. With a
    smaller buffer the examples, which lie shard after shard, are cut into runs of neighbours (a
    buffer has 256 of them, or as many as it has examples), the runs are put in a random order, and
    each buffer of examples in turn is mixed. So what is read for one buffer lies in few pieces of
    many shards, also where shards are sorted by class, and no shard's size or number matters.

    Args:
        num_examples: Examples an epoch.
        seed: Changes the order.
        epoch: Which one, from 0.
        buffer_size: Examples that are mixed with each other; 0 for all.

    Returns:
        Positions, int64 `[num_examples]`.
    """
    if not 0 < buffer_size < num_examples:
        return np.random.default_rng([seed, epoch]).permutation(num_examples)
    generator = np.random.default_rng([seed, epoch, _BUFFERED])
    run = max(1, buffer_size // _RUNS)
    places = generator.permutation(-(-num_examples // run))
    order = (places[:, None] * run + np.arange(run)).ravel()
    order = order[order < num_examples]
    buffers = np.arange(num_examples) // buffer_size
    return order[np.lexsort([generator.random(num_examples), buffers])]
