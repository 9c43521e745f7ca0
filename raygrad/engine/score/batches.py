"""From encoded examples to batches of pixels, and what of them could not be decoded."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raygrad.data.reading import EncodedExample, ordered_map
from raygrad.engine.score.uploading import Uploaded
from raygrad.errors import DataError


@dataclass
class DecodedBatch:
    """Decoded examples, and those met on the way that could not be decoded."""

    images: NDArray[np.uint8]
    """Pixels `[B, C, H, W]`."""
    labels: NDArray[np.int64]
    """Classes `[B]`."""
    keys: list[str]
    """Keys, B of them."""
    rejects: list[dict[str, str]] = field(default_factory=list)
    """Shard, key and reason of what could not be decoded."""
    uploaded: Uploaded | None = None
    """Images and labels on their way to the device."""


Decode = Callable[[EncodedExample], NDArray[np.uint8]]


def batches_of(
    examples: Iterable[EncodedExample], decode: Decode, batch_size: int, num_threads: int
) -> Iterator[DecodedBatch]:
    """Yields batches of `batch_size` usable examples, in order, decoded as they are asked for.

    Args:
        examples: Encoded examples.
        decode: Returns pixels uint8 `[H, W, C]`; raises DataError for what cannot be used.
        batch_size: Usable examples a batch; the last may have fewer, or rejects only.
        num_threads: Threads that decode; one is the thread that asks.

    Raises:
        DataError: Images differ in size.
    """

    def call(example: EncodedExample) -> tuple[EncodedExample, NDArray[np.uint8] | DataError]:
        try:
            return example, decode(example)
        except DataError as error:
            return example, error

    if num_threads == 1:
        yield from _stacked(map(call, examples), batch_size)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        yield from _stacked(ordered_map(pool, call, examples, 4 * num_threads), batch_size)


def _stacked(
    decoded: Iterator[tuple[EncodedExample, NDArray[np.uint8] | DataError]], batch_size: int
) -> Iterator[DecodedBatch]:
    shape: tuple[int, ...] | None = None
    for first in decoded:
        batch = DecodedBatch(np.empty((0, 0, 0, 0), np.uint8), np.empty(0, np.int64), [])
        labels: list[int] = []
        for example, pixels in itertools.chain([first], decoded):
            if isinstance(pixels, DataError):
                row = {"shard": example.shard, "key": example.key, "reason": str(pixels)}
                batch.rejects.append(row)
                continue
            image = pixels.transpose(2, 0, 1)
            shape = shape or image.shape
            if image.shape != shape:
                raise DataError(
                    f"images of a data set must have one size, got {shape} and {image.shape} "
                    f"in {example.key}. Give a size: --image-size."
                )
            if not labels:
                batch.images = np.empty((batch_size, *shape), np.uint8)
            batch.images[len(labels)] = image
            labels.append(example.label)
            batch.keys.append(example.key)
            if len(labels) == batch_size:
                break
        batch.images, batch.labels = batch.images[: len(labels)], np.array(labels, np.int64)
        yield batch
