"""Images that are not kept: read from their shards and decoded each time they are asked for."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.arrays import decoded
from raygrad.data.index import Index
from raygrad.data.reading import EncodedExample, ordered_map, read_rows
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError

GROUP_BYTES = 2**27
"""Encoded images that are read at a time for one consumer, about; twice that is held. Of a split
that takes no more each image is read once and held, as it is stored, as long as it is streamed.
Several loaders share it: each holds, and reads by itself, where all takes no more than its part."""

Decode = Callable[[EncodedExample], NDArray[np.uint8]]
"""From an example to pixels, uint8 `[C, H, W]`."""
Work = tuple[int, NDArray[np.int64], Decode]
"""A batch to be read: its number, the positions of its images, and how they are decoded."""
Tag = TypeVar("Tag")


@dataclass(frozen=True)
class StreamedImages:
    """The images of a split or a subset, `[N, C, H, W]`, none of them in memory.

    Sent to another process it is its rows of the index.
    """

    index: Index
    """Where the shards are; its examples are not looked at."""
    rows: pa.Table
    """The usable rows of the index, in its order: an image's position is that of its row."""
    image_shape: tuple[int, int, int]
    """`[C, H, W]`."""
    transform: CropTransform | None
    """Scales and crops; None where images stay as they are."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`[N, C, H, W]`."""
        return self.rows.num_rows, *self.image_shape

    def chosen(self, positions: NDArray[np.int64]) -> "StreamedImages":
        """Returns the images at ascending positions: a subset, which is read by ranges."""
        rows = self.rows.take(pa.array(positions))
        return StreamedImages(self.index, rows, self.image_shape, self.transform)

    def read(self, positions: NDArray[np.int64], decode: Decode | None = None) -> NDArray[np.uint8]:
        """Returns the images at some positions, uint8 `[b, C, H, W]`.

        Args:
            positions: Where they are, `[b]`, in any order, also twice.
            decode: Another way to decode; by default as the data set's transform says.

        Raises:
            DataError: An image cannot be decoded any more, or a shard is not what was indexed.
            IncompleteError: Storage does not answer.
        """
        ((_, images),) = self.batches([(0, positions, decode or self.plain)])
        return images

    def batches(
        self, work: Iterable[Work], group_bytes: int = GROUP_BYTES
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yields the images of batches in their order, each with its number.

        What several batches need is read together, shard by shard and by ranges of bytes where
        that is cheaper, by a thread that is one such group ahead of the decoding. Groups begin
        small, so that the first batch does not wait for a long read. What a group shares with the
        one before it is not read again; where all images take no more than a group, none is.

        Args:
            work: The batches, as many as there will be or without end.
            group_bytes: Encoded images of a group, at most; a batch alone may be more.
        """
        groups, held = self._groups(work, group_bytes), _Held(self, group_bytes)
        with ThreadPoolExecutor(1, "raygrad-stream") as reader:
            for group, examples in ordered_map(reader, held.read, groups, 2):
                for number, positions, decode in group:
                    chosen = [examples[at] for at in positions.tolist()]
                    yield number, self._decoded(chosen, decode)

    def plain(self, example: EncodedExample) -> NDArray[np.uint8]:
        """Returns the pixels of an example as it is scored and validated."""
        return decoded(example.image, self.image_shape[0], self.transform)

    def _groups(self, work: Iterable[Work], group_bytes: int) -> Iterator[list[Work]]:
        sizes = self.rows["size"].to_numpy()
        group: list[Work] = []
        held, most_batches = 0, 1
        for one in work:
            num_bytes = int(sizes[one[1]].sum())
            if group and (len(group) >= most_batches or held + num_bytes > group_bytes):
                yield group
                group, held, most_batches = [], 0, 2 * most_batches
            group.append(one)
            held += num_bytes
        if group:
            yield group

    def _decoded(self, examples: Sequence[EncodedExample], decode: Decode) -> NDArray[np.uint8]:
        images = np.empty((len(examples), *self.image_shape), np.uint8)
        for at, example in enumerate(examples):
            try:
                image = decode(example)
            except DataError as error:
                raise DataError(
                    f"images must stay as they were when they were looked at first, got {error} of "
                    f"{example.key!r} in {example.shard}. Index the data again, in a new run."
                ) from error
            if image.shape != self.image_shape:
                raise DataError(
                    f"images must stay of the size {self.image_shape} that they had at first, got "
                    f"{image.shape} of {example.key!r} in {example.shard}. Index the data again, "
                    "in a new run."
                )
            images[at] = image
        return images


class _Held:
    """The encoded images that were read for groups of batches, as long as they may serve again.

    Groups are read one after the other; a mapping that was returned does not change.

    Args:
        images: Where they are.
        group_bytes: If all images take no more, all that were read are held, else those of the last
            group. A subset that is small would otherwise be asked for again every few epochs, by a
            request for nearly every image.
    """

    def __init__(self, images: StreamedImages, group_bytes: int) -> None:
        self._images = images
        self._keeps_all = int(images.rows["size"].to_numpy().sum()) <= group_bytes
        self._examples: dict[int, EncodedExample] = {}

    def read(self, group: list[Work]) -> tuple[list[Work], dict[int, EncodedExample]]:
        """Returns a group with its examples, and maybe others, by position."""
        wanted = np.unique(np.concatenate([positions for _, positions, _ in group])).tolist()
        lacking = [at for at in wanted if at not in self._examples]
        if not self._keeps_all:
            self._examples = {at: self._examples[at] for at in wanted if at in self._examples}
        self._examples = self._examples | self._read(lacking)
        return group, self._examples

    def _read(self, positions: list[int]) -> dict[int, EncodedExample]:
        if not positions:
            return {}
        rows = self._images.rows.take(pa.array(positions, pa.int64()))
        places = dict(zip(rows["key"].to_pylist(), positions, strict=True))
        return {places[one.key]: one for one in read_rows(self._images.index, rows)}


def dealt(items: Iterable[Tag], worker: int, num_workers: int) -> Iterator[Tag]:
    """Returns every `num_workers`-th item, from the one of this worker on."""
    return itertools.islice(items, worker, None, num_workers)
