"""Data sets that raygrad can write as shards, by name."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raygrad.data.example_sets import ArrayExamples, ExampleSet
from raygrad.data.image_folders import Splits, image_folder_splits
from raygrad.data.imagenet import imagenet_splits, is_imagenet
from raygrad.errors import ConfigError, unknown_name

DIGITS_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Source:
    """A data set before it is written: its examples by split, and what they are."""

    train: ExampleSet
    """Training examples, validation included."""
    test: ExampleSet
    """Test examples."""
    classes: tuple[str, ...]
    """The name of each class."""
    channels: int
    """Colour channels of the images."""
    rejects: tuple[tuple[str, str], ...] = ()
    """Place and reason of what was found and cannot be used."""
    num_lost: int = 0
    """How many of these are, or should have been, examples."""
    notes: tuple[str, ...] = ()
    """What the user should know: a line each."""


@dataclass(frozen=True)
class HeldOut:
    """Which examples become the test split where a data set has none of its own."""

    fraction: float = 0.2
    """Their share, chosen by a hash of (seed, key)."""
    seed: int = 0
    """Changes which ones."""


class OpenSource(Protocol):
    """Opens a data set from the folder of its own files."""

    def __call__(
        self, data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()
    ) -> Source:
        """Returns the data set; fetches it first where that is asked for and possible."""


def digits(
    data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()
) -> Source:
    """The 1,797 handwritten digits that scikit-learn ships: 8x8 pixels, 17 levels of grey.

    A stratified fifth, chosen once and for all, is the test split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    del data_dir, download, held_out  # they come with scikit-learn
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=DIGITS_TEST_FRACTION, random_state=0, stratify=labels
    )
    everything = ArrayExamples("digits", pixels, labels, np.arange(len(pixels)))
    classes = tuple(str(name) for name in bunch.target_names)
    return Source(everything.take(np.sort(train)), everything.take(np.sort(test)), classes, 1)


def mnist(data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()) -> Source:
    """MNIST, 70,000 digits of 28x28 pixels, from torchvision's folder (``MNIST/raw``)."""
    del held_out  # it has a test split
    train, test = (_torchvision("MNIST", data_dir, train, download) for train in (True, False))
    return Source(
        _array_examples("mnist-train", train.data.numpy(), train.targets),
        _array_examples("mnist-test", test.data.numpy(), test.targets),
        tuple(str(digit) for digit in range(10)),
        channels=1,
    )


def cifar10(
    data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()
) -> Source:
    """CIFAR-10, 60,000 photographs of 32x32 pixels, from torchvision's folder."""
    del held_out  # it has a test split
    return _cifar("CIFAR10", data_dir, download)


def cifar100(
    data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()
) -> Source:
    """CIFAR-100, 60,000 photographs of 32x32 pixels, from torchvision's folder."""
    del held_out  # it has a test split
    return _cifar("CIFAR100", data_dir, download)


def image_folder(
    data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()
) -> Source:
    """Any photographs in class folders: ``train/<class>/*`` and ``test/<class>/*`` (or ``val``).

    Files are copied as they are. A class is a folder of train, numbered in sorted order. Without
    folders of splits, ``<class>/*``, `held_out` says which images are the test split. What is laid
    out as ImageNet is read as `imagenet`.
    """
    if download:
        raise ConfigError("only mnist, cifar10 and cifar100 can be fetched, got --download.")
    root = _need(data_dir, "image-folder")
    if is_imagenet(root):
        return _of_files(imagenet_splits(root))
    return _of_files(image_folder_splits(root, test_fraction=held_out.fraction, seed=held_out.seed))


def imagenet(
    data_dir: str | None, *, download: bool = False, held_out: HeldOut = HeldOut()
) -> Source:
    """ILSVRC2012 as it is published: ``train/<wnid>/*``, and ``val`` as the test split.

    Labels of a flat ``val`` folder come from a table that names the files (Kaggle's
    ``LOC_val_solution.csv``, Caffe's ``val.txt``, tiny-imagenet's ``val_annotations.txt``), the
    devkit (its ground truth and ``meta.mat``), or a text file with one wnid a line, in the order of
    the file names.
    """
    del held_out
    if download:
        raise ConfigError("only mnist, cifar10 and cifar100 can be fetched, got --download.")
    return _of_files(imagenet_splits(_need(data_dir, "imagenet")))


SOURCES: dict[str, OpenSource] = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "image-folder": image_folder,
    "imagenet": imagenet,
}
"""Data sets by name; each takes the folder of its own files."""


def check_source(name: str) -> None:
    """Raises ConfigError unless the name is of a known source."""
    if name not in SOURCES:
        what = unknown_name("source", name, SOURCES)
        raise ConfigError(f"{what} Or name a folder or file of data that is there.")


def _of_files(splits: Splits) -> Source:
    found = splits.found
    num_used = len(splits.train) + len(splits.test)
    return Source(
        splits.train,
        splits.test,
        splits.classes,
        channels=3,
        rejects=tuple(found.rejects),
        num_lost=found.num_lost,
        notes=(*splits.notes, *found.notes(num_used)),
    )


def _cifar(name: str, data_dir: str | None, download: bool) -> Source:
    train, test = (_torchvision(name, data_dir, train, download) for train in (True, False))
    prefix = name.lower()
    return Source(
        _array_examples(f"{prefix}-train", train.data, train.targets),
        _array_examples(f"{prefix}-test", test.data, test.targets),
        tuple(train.classes),
        channels=3,
    )


def _array_examples(prefix: str, pixels: NDArray[np.uint8], labels: Any) -> ArrayExamples:
    return ArrayExamples(prefix, pixels, np.asarray(labels, np.int64), np.arange(len(pixels)))


def _torchvision(name: str, data_dir: str | None, train: bool, download: bool) -> Any:
    """Opens a data set of torchvision, which checks the files' published digests itself."""
    import torchvision

    try:
        return getattr(torchvision.datasets, name)(_need(data_dir, name), train, download=download)
    except RuntimeError as error:
        raise ConfigError(
            f"{name} must be in the data folder as torchvision stores it, got none in {data_dir} "
            f"({error}). Give another --data-dir, or --download."
        ) from error


def _need(data_dir: str | None, name: str) -> str:
    if data_dir is None:
        raise ConfigError(
            f"{name} must be given the folder of its files, got none. Do: --data-dir."
        )
    return data_dir
