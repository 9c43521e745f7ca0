"""What a rank takes at each step, gathered one step ahead where that takes long."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.training import ranks
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples
from raygrad.training.streamed_examples import PhotoCrops, StreamedExamples, rank_share

_Images = Callable[[int, Tensor], Tensor]
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

    Images that lie elsewhere, in host memory beside a GPU, in a mapped file or in their shards, are
    gathered for the next step by a thread while the current one computes.

    Args:
        examples: The split.
        order: Which examples each step takes.
        device: Where the network is.
        crops: How streamed images are cut out of photographs, if they are.

    Raises:
        ConfigError: They are to be, and images are decoded already.
    """

    def __init__(
        self,
        examples: Examples | StreamedExamples,
        order: DataOrder,
        device: torch.device,
        crops: PhotoCrops | None = None,
    ) -> None:
        self._labels, self._order, self._device = examples.labels, order, device
        if isinstance(examples, StreamedExamples):
            steps = examples.steps(order, crops)
            self._images: _Images = lambda step, _: steps.take(step)
            self._others: _Images = lambda step, at: steps.partners(at, step)
            is_near, is_far = False, True
        elif crops is not None:
            raise ConfigError(
                f"augment {crops.kind} cuts images out of their stored photographs, got images "
                "that are decoded already. Let them be streamed: --train.data stream."
            )
        else:
            self._images = lambda _, at: examples.take(at)
            self._others = lambda _, at: examples.take(at)
            is_near = examples.images.device.type != "cpu"
            is_far = examples.is_mapped or examples.images.device != device
        self._pins = device.type == "cuda" and not is_near
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
            labels=self._labels[at],
        )

    def others(self, positions: Tensor, step: int) -> Tensor:
        """Returns other images of the split as a step has them, uint8 `[b, C, H, W]`."""
        return self._others(step, positions).to(self._device)

    def _gather(self, step: int) -> _Gathered:
        everyone = self._order.batch(step)
        rows, num_mine = rank_share(everyone, ranks.rank(), ranks.world_size())
        positions = torch.from_numpy(everyone[rows])
        images = self._images(step, positions)
        if self._pins:
            images = images.pin_memory()
        return rows, num_mine, everyone, images, positions
