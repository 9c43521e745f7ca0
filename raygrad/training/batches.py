"""What a rank takes at each step, gathered one step ahead where that takes long."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raygrad.training import ranks
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples

_Gathered = tuple[NDArray[np.int64], int, NDArray[np.int64], Tensor, Tensor]


@dataclass(frozen=True)
class Batch:
    """A rank's share of a global batch."""

    positions: Tensor
    """Where its examples are in the split, int64 `[b]`, on the device."""
    rows: NDArray[np.int64]
    """Their places in the global batch, `[b]`."""
    num_mine: int
    """How many count: b, or 0 where a small batch left this rank none and it holds another's."""
    everyone: NDArray[np.int64]
    """Where the examples of the global batch are in the split."""
    images: Tensor
    """Pixels, uint8 `[b, C, H, W]`, on the device."""
    labels: Tensor
    """Classes, int64 `[b]`, on the device."""

    @property
    def num_global(self) -> int:
        """Examples of the global batch."""
        return len(self.everyone)


class Batches:
    """This rank's share of each step's batch, on the device.

    Images that lie elsewhere, in host memory beside a GPU or in a mapped file, are gathered for the
    next step by a thread while the current one computes.

    Args:
        examples: The split.
        order: Which examples each step takes.
        device: Where the network is.
    """

    def __init__(self, examples: Examples, order: DataOrder, device: torch.device) -> None:
        self._examples, self._order, self._device = examples, order, device
        self._pins = device.type == "cuda" and examples.images.device.type == "cpu"
        is_far = examples.is_mapped or examples.images.device != device
        self._thread = ThreadPoolExecutor(1, "raygrad-batches") if is_far else None
        self._ahead: tuple[int, Future[_Gathered]] | None = None

    def take(self, step: int) -> Batch:
        """Returns the batch of a step, counted from 0 over all epochs."""
        if self._ahead is not None:
            # The thread and this one share the order, which remembers an epoch: one at a time.
            ahead, gathered = self._ahead[0], self._ahead[1].result()
            found = gathered if ahead == step else self._gather(step)
        else:
            found = self._gather(step)
        if self._thread is not None:
            self._ahead = step + 1, self._thread.submit(self._gather, step + 1)
        rows, num_mine, everyone, images, positions = found
        at = positions.to(self._device)
        return Batch(
            positions=at,
            rows=rows,
            num_mine=num_mine,
            everyone=everyone,
            images=images.to(self._device, non_blocking=True),
            labels=self._examples.labels[at],
        )

    def _gather(self, step: int) -> _Gathered:
        everyone = self._order.batch(step)
        rows = np.arange(len(everyone))[ranks.rank() :: ranks.world_size()]
        # A rank without an example in a small batch still has to join the others' all-reduce.
        num_mine = len(rows)
        rows = rows if num_mine else np.zeros(1, np.int64)
        positions = torch.from_numpy(everyone[rows])
        images = self._examples.take(positions)
        if self._pins:
            images = images.pin_memory()
        return rows, num_mine, everyone, images, positions
