"""What a step makes of its batch before the network sees it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raygrad.config import TrainConfig
from raygrad.training.augment import alternately_mirrored, augment, mixup_partners, scaled_down
from raygrad.training.batches import Batch, Batches
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples
from raygrad.training.streamed_examples import StreamedExamples


class Variation:
    """Varies the images of batches as a recipe says: a function of seed, step and row alone.

    Args:
        config: `augment` and the fields beside it, `small_size`.
        order: Which examples each step takes.
        seed: The seed of the order.
        examples: The split.
        batches: Where mixup finds its partners.
    """

    def __init__(
        self,
        config: TrainConfig,
        order: DataOrder,
        seed: int,
        examples: Examples | StreamedExamples,
        batches: Batches,
    ) -> None:
        self._config, self._order, self._seed = config, order, seed
        self._labels, self._batches = examples.labels, batches

    def of(
        self, batch: Batch, step: int, small: bool = False
    ) -> tuple[Tensor, Tensor | None, float]:
        """Returns the images as the recipe varies them, and what mixup blended their labels with.

        Partners are of the global batch: another number of ranks blends the same pairs.

        Args:
            batch: This rank's share of the step's batch.
            step: Counted from 0 over all epochs.
            small: Whether images are scaled down to `small_size`.

        Returns:
            Images `[b, C, H, W]`, uint8 but where they are blended; the partners' classes `[b]`, or
            None; the share of the blend that is the image itself.
        """
        images = self._varied(batch.images, batch, batch.rows, step)
        if "mixup" in self._config.augmentations:
            seeds = {"seed": self._seed, "step": step, "of": batch.num_global}
            rows, share = mixup_partners(self._config, rows=batch.rows, **seeds)
            at = torch.from_numpy(batch.everyone[rows])
            others = self._varied(self._batches.others(at, step), batch, rows, step)
            if small:
                images, others = self._small(images), self._small(others)
            blended = images.float() * share + others.float() * (1 - share)
            return blended, self._labels[at.to(self._labels.device)], share
        return self._small(images) if small else images, None, 1.0

    def _small(self, images: Tensor) -> Tensor:
        return scaled_down(images, self._config.small_size)

    def _varied(self, images: Tensor, batch: Batch, rows: NDArray[np.int64], step: int) -> Tensor:
        alternate = None
        if "alternating_flip" in self._config.augmentations:
            epoch, positions = self._order.epoch_of(step), batch.everyone[rows]
            alternate = alternately_mirrored(positions, len(self._labels), epoch, self._seed)
        return augment(
            images,
            self._config,
            seed=self._seed,
            step=step,
            rows=rows,
            of=batch.num_global,
            alternate=alternate,
        )
