"""Which examples a step takes: a global shuffle per epoch, cut evenly over ranks."""

import numpy as np
from numpy.typing import NDArray


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
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self._num_examples, self._batch_size, self._seed = num_examples, batch_size, seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example is taken once."""
        return -(-self._num_examples // self._batch_size)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Returns the positions of the global batch of a step, counted from 0 over all epochs."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = np.random.default_rng([self._seed, epoch])
            self._permutation = generator.permutation(self._num_examples)
            self._epoch = epoch
        start, end = (i * self._num_examples // self.steps_per_epoch for i in (index, index + 1))
        return self._permutation[start:end]
