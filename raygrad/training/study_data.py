"""The three splits of a data set in memory, as training wants them."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raygrad.data.arrays import ImageArrays, load_arrays
from raygrad.data.index import Index
from raygrad.data.transforms import CropTransform
from raygrad.errors import DataError
from raygrad.training.loop import Examples
from raygrad.training.models import ImageSpec
from raygrad.training.preprocess import Normalize, channel_statistics


@dataclass(frozen=True)
class StudyData:
    """Images as numpy arrays, so that Ray's object store shares them without a copy."""

    train: ImageArrays
    """The training split, without validation."""
    val: ImageArrays
    """The validation split."""
    test: ImageArrays
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

    def examples(self, split: str, positions: NDArray[np.int64] | None = None) -> Examples:
        """Returns a split as tensors, or the examples at `positions` of it."""
        arrays: ImageArrays = getattr(self, split)
        images, labels = arrays.images, arrays.labels
        if positions is not None:
            images, labels = images[positions], labels[positions]
        return Examples(_tensor(images), _tensor(labels))


def load_study_data(
    index: Index, num_classes: int, channels: int, transform: CropTransform | None = None
) -> StudyData:
    """Decodes every usable image of the data set once, to `channels` colour channels.

    Images stay as they are, or a transform scales and cuts them, in its deterministic way.

    Raises:
        DataError: A split is empty, or a class has no training example.
    """
    splits = {
        split: load_arrays(index, split, channels=channels, transform=transform)
        for split in ("train", "val", "test")
    }
    for split, arrays in splits.items():
        if len(arrays.labels) == 0:
            raise DataError(f"the {split} split must hold an example, got none. Check the index.")
    counts = np.bincount(splits["train"].labels, minlength=num_classes)
    missing = np.flatnonzero(counts == 0).tolist()
    if missing:
        raise DataError(
            f"every class must have a training example, got none of classes {missing}. "
            "Check the labels, or lower val_fraction."
        )
    normalize = channel_statistics(_tensor(splits["train"].images))
    return StudyData(**splits, num_classes=num_classes, normalize=normalize)


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    with warnings.catch_warnings():
        # Arrays out of Ray's object store are read-only; nothing here writes to them.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
