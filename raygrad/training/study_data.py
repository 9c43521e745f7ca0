"""The three splits of a data set, as training wants them: in memory, on a disk, or streamed."""

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raygrad.data.arrays import ImageArrays, load_arrays, shared_arrays
from raygrad.data.decode import decode_image
from raygrad.data.index import Index, read_index
from raygrad.data.reading import read_rows
from raygrad.data.reject_share import check_reject_share
from raygrad.data.streaming import StreamedImages
from raygrad.data.surveying import survey, without_examples
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError
from raygrad.training.examples import Examples
from raygrad.training.models import ImageSpec
from raygrad.training.preprocess import Normalize, channel_statistics, counted_statistics
from raygrad.training.streamed_examples import StreamedExamples

SPLITS = ("train", "val", "test")
_SAMPLE = 64
"""So many images are looked at for one that shows the size of all."""


@dataclass(frozen=True)
class StreamedSplit:
    """What `ImageArrays` holds, but for the pixels, which are read when they are asked for."""

    images: StreamedImages
    """Pixels `[N, C, H, W]`, where they are."""
    labels: NDArray[np.int64]
    """Classes `[N]`."""
    keys: Sequence[str]
    """Keys, N of them."""
    rejects: pa.Table
    """Examples whose image cannot be decoded: shard, key, reason."""
    counts: NDArray[np.int64]
    """How often each value of a byte comes in each channel, `[C, 256]`."""


@dataclass(frozen=True)
class StudyData:
    """Images as numpy arrays, so that Ray's object store shares them without a copy."""

    train: ImageArrays | StreamedSplit
    """The training split, without validation."""
    val: ImageArrays | StreamedSplit
    """The validation split."""
    test: ImageArrays | StreamedSplit
    """The test split."""
    num_classes: int
    """Classes that the labels count."""
    normalize: Normalize
    """Statistics of the training split."""

    @property
    def spec(self) -> ImageSpec:
        """What a network must accept."""
        _, channels, height, width = self.train.images.shape
        return ImageSpec(channels, height, width, self.num_classes)

    @property
    def num_examples(self) -> dict[str, int]:
        """Usable examples of each split."""
        return {split: len(getattr(self, split).labels) for split in SPLITS}

    @property
    def num_used(self) -> int:
        """Usable examples of all splits."""
        return sum(self.num_examples.values())

    @property
    def rejects(self) -> pa.Table:
        """Examples of all splits whose image could not be decoded: shard, key, reason."""
        return pa.concat_tables([getattr(self, split).rejects for split in SPLITS])

    def examples(
        self,
        split: str,
        positions: NDArray[np.int64] | None = None,
        loaders: int | None = None,
    ) -> Examples | StreamedExamples:
        """Returns a split as tensors, or the examples at `positions` of it.

        Those are copied out of images in memory; of mapped ones they are read as they are needed.

        Args:
            split: "train", "val" or "test".
            positions: Ascending, `[N]`; by default all.
            loaders: Processes that read streamed images; by default one a thread of this process.
        """
        arrays: ImageArrays | StreamedSplit = getattr(self, split)
        images, labels = arrays.images, arrays.labels
        if isinstance(images, StreamedImages):
            processes = torch.get_num_threads() if loaders is None else loaders
            if positions is not None:
                images, labels = images.chosen(positions), labels[positions]
            return StreamedExamples(images, _tensor(labels), processes)
        is_mapped = isinstance(images, np.memmap)
        if positions is None:
            return Examples(_tensor(images), _tensor(labels), is_mapped)
        if is_mapped:
            at = torch.from_numpy(positions)
            return Examples(_tensor(images), _tensor(labels[positions]), True, at)
        return Examples(_tensor(images[positions]), _tensor(labels[positions]))


@dataclass(frozen=True)
class StudySource:
    """Where a data set comes from that is too large for memory: what is sent between processes.

    Each node decodes it once, into files that its processes map; or, streamed, nothing is decoded
    before it is trained on.
    """

    index_url: str
    """The folder of the index."""
    num_classes: int
    """Classes that the labels count."""
    channels: int
    """1 or 3."""
    transform: CropTransform | None
    """What makes images one size."""
    cache_dir: str
    """A folder on each node's own disk."""
    max_reject_share: float = 1.0
    """The share of images that may be undecodable, in [0, 1]."""
    cache_bytes: int = 0
    """At most so many bytes of decoded images are kept there; 0 for as many as the disk holds."""
    survey_url: str | None = None
    """Where images are streamed: the folder of what one look at all of them has found; else None.
    """

    @property
    def is_streamed(self) -> bool:
        """Whether images are decoded as they are trained on, and none before."""
        return self.survey_url is not None

    @property
    def num_examples(self) -> dict[str, int]:
        """Examples of each split, those that cannot be decoded included."""
        index = read_index(self.index_url)
        return {split: index.rows(split).num_rows for split in SPLITS}

    def surveyed(self, map_fn: Callable[..., Iterable[Any]] = map) -> None:
        """Looks at all images once, where they are streamed and that was not done before.

        Args:
            map_fn: Like `map`; in parallel when given a parallel map.

        Raises:
            DataError: As of `load_study_data`.
        """
        if self.survey_url is not None:
            _streamed(self, map_fn)

    def open(self) -> StudyData:
        """Returns the data set, mapped; the first process of a node decodes, the others wait.

        Streamed, it is where its images are.

        Raises:
            DataError: As of `load_study_data`.
        """
        return _opened(self)


def decoded_bytes(index: Index, channels: int, transform: CropTransform | None) -> int:
    """Returns what the images of a data set take once they are decoded."""
    if index.examples.num_rows == 0:
        return 0
    if transform is not None:
        return index.examples.num_rows * channels * transform.crop**2
    for example in read_rows(index, index.examples.slice(0, _SAMPLE)):
        try:
            return index.examples.num_rows * decode_image(example.image, channels=channels).nbytes
        except DataError:
            continue  # the load names it
    return 0


def load_study_data(
    index: Index,
    num_classes: int,
    channels: int,
    transform: CropTransform | None = None,
    max_reject_share: float = 1.0,
) -> StudyData:
    """Decodes every usable image of the data set once, to `channels` colour channels.

    Images stay as they are, or a transform scales and cuts them, in its deterministic way.

    Args:
        index: The data set.
        num_classes: Classes that the labels count.
        channels: 1 or 3.
        transform: What makes images one size.
        max_reject_share: The share of images, of all splits together, that may be undecodable.

    Raises:
        TooManyRejectsError: More images than that cannot be decoded.
        DataError: A split is empty, or a class has no training example.
    """

    def load(split: str) -> ImageArrays:
        return load_arrays(index, split, channels=channels, transform=transform)

    return _checked(load, index, num_classes, max_reject_share)


@functools.lru_cache(maxsize=1)
def _opened(source: StudySource) -> StudyData:
    if source.survey_url is not None:
        return _streamed(source)
    index = read_index(source.index_url)

    def load(split: str) -> ImageArrays:
        return shared_arrays(
            index,
            split,
            channels=source.channels,
            transform=source.transform,
            folder=source.cache_dir,
            most_bytes=source.cache_bytes,
        )

    return _checked(load, index, source.num_classes, source.max_reject_share)


def _streamed(source: StudySource, map_fn: Callable[..., Iterable[Any]] = map) -> StudyData:
    index, folder = read_index(source.index_url), source.survey_url
    assert folder is not None
    bare = without_examples(index)

    def load(split: str) -> StreamedSplit:
        found = survey(
            index,
            split,
            channels=source.channels,
            transform=source.transform,
            folder=folder,
            map_fn=map_fn,
        )
        rows = found.usable(index.rows(split)).combine_chunks()
        shape = found.image_shape or (source.channels, 0, 0)
        return StreamedSplit(
            StreamedImages(bare, rows, shape, source.transform),
            rows["label"].to_numpy(),
            rows["key"].to_pylist(),
            found.rejects,
            found.counts,
        )

    return _checked(load, index, source.num_classes, source.max_reject_share)


def _statistics(train: ImageArrays | StreamedSplit) -> Normalize:
    """Returns the normalisation of the training split, whose bytes were counted by what decoded."""
    if train.counts is None:
        assert isinstance(train, ImageArrays)
        return channel_statistics(_tensor(train.images))
    return counted_statistics(_tensor(train.counts))


def _checked(
    load: Callable[[str], ImageArrays | StreamedSplit],
    index: Index,
    num_classes: int,
    max_reject_share: float,
) -> StudyData:
    # What the index tells is said before anything is decoded, which may take hours.
    _check_labels({split: index.rows(split)["label"].to_numpy() for split in SPLITS}, num_classes)
    splits = {split: load(split) for split in SPLITS}
    rejects = pa.concat_tables([arrays.rejects for arrays in splits.values()])
    # First: splits and classes are also empty where their images cannot be decoded.
    check_reject_share(rejects, sum(len(a.labels) for a in splits.values()), max_reject_share)
    _check_labels({split: arrays.labels for split, arrays in splits.items()}, num_classes)
    return StudyData(**splits, num_classes=num_classes, normalize=_statistics(splits["train"]))


def _check_labels(labels: dict[str, NDArray[np.int64]], num_classes: int) -> None:
    for split, of_split in labels.items():
        if len(of_split) == 0:
            raise DataError(
                f"the {split} split must hold an example, got none. Data of score --data are not "
                "split: index them in a new run, raygrad index DATA --test-tars TEST --run NEW "
                "(validation is taken by a hash), then train or score, and sweep there."
            )
    counts = np.bincount(labels["train"], minlength=num_classes)
    missing = np.flatnonzero(counts == 0).tolist()
    if missing:
        raise DataError(
            f"every class must have a training example, got none of {len(missing)} of "
            f"{num_classes} classes: {', '.join(map(str, missing[:5]))}"
            f"{', ...' if len(missing) > 5 else ''}. Where labels count from 1 or have gaps, index "
            "again in a new run with --renumber; else check the labels, or lower val_fraction."
        )


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    with warnings.catch_warnings():
        # Arrays out of Ray's object store are read-only; nothing here writes to them.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
