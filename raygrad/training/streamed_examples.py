"""Examples whose images are read and decoded as training goes along, by processes beside it."""

import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from raygrad.config import TrainConfig
from raygrad.data.reading import EncodedExample
from raygrad.data.streaming import GROUP_BYTES, StreamedImages, Work, dealt
from raygrad.errors import RaygradError
from raygrad.training import ranks
from raygrad.training.data_order import DataOrder

_AHEAD = 2
"""Batches that each process has ready."""

Loaded = tuple[int, Tensor | Exception]
"""A batch's number with its images, or what went wrong where they were read."""


@dataclass(frozen=True)
class PhotoCrops:
    """How a training image is cut out of its stored photograph, differently every epoch."""

    kind: str
    """photo_crop or photo_resized_crop."""
    scale: float
    """Of photo_resized_crop: the smallest share of the photograph's area."""
    seed: int
    """With epoch and key it decides the cut, whichever rank makes it, and whenever."""

    @staticmethod
    def of(config: TrainConfig, seed: int) -> "PhotoCrops | None":
        """Returns what a recipe asks for, None where it takes images as they are scored."""
        kind = config.photo_augmentation
        return None if kind is None else PhotoCrops(kind, config.crop_scale, seed)

    def decode(
        self, example: EncodedExample, images: StreamedImages, epoch: int
    ) -> NDArray[np.uint8]:
        """Returns an example's pixels in an epoch, uint8 `[C, H, W]`."""
        transform = images.transform
        assert transform is not None
        drawn = {"seed": self.seed, "epoch": epoch, "key_hash": example.key_hash}
        channels = images.image_shape[0]
        if self.kind == "photo_crop":
            pixels = transform.train(example.image, channels=channels, **drawn)
        else:
            pixels = transform.resized_crop(
                example.image, channels=channels, scale=self.scale, **drawn
            )
        return pixels.transpose(2, 0, 1)


@dataclass(frozen=True)
class StreamedExamples:
    """Images and labels of one split or subset, as `Examples`, but no image is kept."""

    images: StreamedImages
    """The images, where they are read."""
    labels: Tensor
    """Classes, int64 `[N]`."""
    processes: int = 1
    """Processes that read and decode beside each rank; 0 for a thread of its own."""
    group_bytes: int = GROUP_BYTES
    """Encoded images that they read at a time, all together, and hold; see `StreamedImages`."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> torch.Size:
        """`[C, H, W]`."""
        return torch.Size(self.images.image_shape)

    def take(self, positions: Tensor) -> Tensor:
        """Returns the images at `positions` as they are scored, uint8 `[b, C, H, W]`."""
        return torch.from_numpy(self.images.read(positions.cpu().numpy()))

    def between(self, start: int, end: int) -> Tensor:
        """Returns the images of consecutive positions."""
        return self.take(torch.arange(start, min(end, len(self))))

    def chunks(self, starts: Sequence[int], size: int) -> Iterator[Tensor]:
        """Yields the images from each start on, `size` of them or what is left."""
        work = functools.partial(_chunks, list(starts), size, len(self))
        # One batch leaves nothing to be done beside it.
        processes = min(self.processes, len(starts)) if len(starts) > 1 else 0
        for _, images in self._loaded(work, processes):
            yield _whole(images)

    def near(self, device: torch.device) -> "StreamedExamples":
        """Returns the examples with their labels on a device; images come batch by batch."""
        return dataclasses.replace(self, labels=self.labels.to(device))

    def steps(self, order: DataOrder, crops: PhotoCrops | None) -> "Steps":
        """Returns the images of this rank's share of each step."""
        return Steps(self, order, crops)

    def cut(self, positions: Tensor, crops: PhotoCrops | None, epoch: int) -> Tensor:
        """Returns the images at `positions` as they are cut out in an epoch."""
        if crops is None:
            return self.take(positions)
        decode = functools.partial(crops.decode, images=self.images, epoch=epoch)
        return torch.from_numpy(self.images.read(positions.cpu().numpy(), decode))

    def _loaded(
        self, work: Callable[[StreamedImages], Iterable[Work]], processes: int
    ) -> Iterator[Loaded]:
        batches = _Batches(self.images, work, self.group_bytes // max(1, processes))
        if not processes:
            return iter(batches)
        return iter(
            DataLoader(
                batches,
                batch_size=None,
                num_workers=processes,
                prefetch_factor=_AHEAD,
                multiprocessing_context=_context(),
            )
        )


class Steps:
    """The images of one rank's share of each step, read ahead from the step that is asked for.

    Args:
        examples: The split.
        order: Which examples each step takes.
        crops: How images are cut out of photographs, if they are.
    """

    def __init__(
        self, examples: StreamedExamples, order: DataOrder, crops: PhotoCrops | None
    ) -> None:
        self._examples, self._order, self._crops = examples, order, crops
        self._ahead: Iterator[Loaded] | None = None
        self._next = -1

    def take(self, step: int) -> Tensor:
        """Returns the images of a step, uint8 `[b, C, H, W]`, in the order of its share.

        Raises:
            DataError: As of `StreamedImages.read`.
            IncompleteError: Storage does not answer.
        """
        if self._ahead is None or step != self._next:
            work = functools.partial(
                _steps, self._order, self._crops, step, ranks.rank(), ranks.world_size()
            )
            self._ahead = self._examples._loaded(work, self._examples.processes)
        number, images = next(self._ahead)
        found = _whole(images)
        assert number == step, f"step {number} came instead of {step}"
        self._next = step + 1
        return found

    def partners(self, positions: Tensor, step: int) -> Tensor:
        """Returns other images as this step would cut them out: what mixup blends with."""
        return self._examples.cut(positions, self._crops, self._order.epoch_of(step))


def rank_share(
    everyone: NDArray[np.int64], rank: int, world_size: int
) -> tuple[NDArray[np.int64], int]:
    """Returns a rank's rows of a global batch `[b]`, and how many of them count.

    A rank without an example in a small batch still has to join the others' all-reduce: it holds
    the first one, which does not count.
    """
    rows = np.arange(len(everyone))[rank::world_size]
    return (rows, len(rows)) if len(rows) else (np.zeros(1, np.int64), 0)


class _Batches(IterableDataset[Loaded]):
    """Decodes batches; each of several processes takes every so many-th, so their order stays."""

    def __init__(
        self,
        images: StreamedImages,
        work: Callable[[StreamedImages], Iterable[Work]],
        group_bytes: int,
    ) -> None:
        super().__init__()
        self._images, self._work, self._group_bytes = images, work, group_bytes

    def __iter__(self) -> Iterator[Loaded]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        work = dealt(self._work(self._images), worker, num_workers)
        try:
            for number, images in self._images.batches(work, self._group_bytes):
                yield number, torch.from_numpy(images)
        except (RaygradError, OSError) as error:
            # DataLoader would raise it with its own stack as the text, which is for nobody.
            yield -1, error


def _steps(
    order: DataOrder,
    crops: PhotoCrops | None,
    first: int,
    rank: int,
    world_size: int,
    images: StreamedImages,
) -> Iterator[Work]:
    """Yields a rank's share of every step from one on, without end."""
    for step in itertools.count(first):
        everyone = order.batch(step)
        rows, _ = rank_share(everyone, rank, world_size)
        decode = images.plain
        if crops is not None:
            decode = functools.partial(crops.decode, images=images, epoch=order.epoch_of(step))
        yield step, everyone[rows], decode


def _chunks(
    starts: list[int], size: int, num_examples: int, images: StreamedImages
) -> Iterator[Work]:
    for start in starts:
        yield start, np.arange(start, min(start + size, num_examples)), images.plain


def _whole(images: Tensor | Exception) -> Tensor:
    if isinstance(images, Exception):
        raise images
    return images


@functools.cache
def _context() -> multiprocessing.context.BaseContext:
    """Returns how processes are started: from one that has all imports and no threads.

    A fork of a rank would copy locks that its threads hold, and connections to storage.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context
