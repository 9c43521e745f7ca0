"""Data sets that raygrad can write as shards, by name."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raygrad.data.example_sets import ArrayExamples, ExampleSet
from raygrad.data.image_folders import image_folder_splits, imagenet_splits
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


class OpenSource(Protocol):
    """Opens a data set from the folder of its own files."""

    def __call__(self, data_dir: str | None, *, download: bool = False) -> Source:
        """Returns the data set; fetches it first where that is asked for and possible."""


def digits(data_dir: str | None, *, download: bool = False) -> Source:
    """The 1,797 handwritten digits that scikit-learn ships: 8x8 pixels, 17 levels of grey.

    A stratified fifth, chosen once and for all, is the test split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    del data_dir, download  # they come with scikit-learn
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=DIGITS_TEST_FRACTION, random_state=0, stratify=labels
    )
    everything = ArrayExamples("digits", pixels, labels, np.arange(len(pixels)))
    classes = tuple(str(name) for name in bunch.target_names)
    return Source(everything.take(np.sort(train)), everything.take(np.sort(test)), classes, 1)


def mnist(data_dir: str | None, *, download: bool = False) -> Source:
    """MNIST, 70,000 digits of 28x28 pixels, from torchvision's folder (``MNIST/raw``)."""
    train, test = (_torchvision("MNIST", data_dir, train, download) for train in (True, False))
    return Source(
        _array_examples("mnist-train", train.data.numpy(), train.targets),
        _array_examples("mnist-test", test.data.numpy(), test.targets),
        tuple(str(digit) for digit in range(10)),
        channels=1,
    )


def cifar10(data_dir: str | None, *, download: bool = False) -> Source:
    """CIFAR-10, 60,000 photographs of 32x32 pixels, from torchvision's folder."""
    return _cifar("CIFAR10", data_dir, download)


def cifar100(data_dir: str | None, *, download: bool = False) -> Source:
    """CIFAR-100, 60,000 photographs of 32x32 pixels, from torchvision's folder."""
    return _cifar("CIFAR100", data_dir, download)


def image_folder(data_dir: str | None, *, download: bool = False) -> Source:
    """Any photographs in class folders: ``train/<class>/*`` and ``test/<class>/*`` (or ``val``).

    Files are copied as they are. A class is a folder of train, numbered in sorted order.
    """
    if download:
        raise ConfigError("only mnist, cifar10 and cifar100 can be fetched, got --download.")
    train, test, classes = image_folder_splits(_need(data_dir, "image-folder"))
    return Source(train, test, classes, channels=3)


def imagenet(data_dir: str | None, *, download: bool = False) -> Source:
    """ILSVRC2012 as it is published: ``train/<wnid>/*``, and ``val`` as the test split.

    Labels of a flat ``val`` folder come from the devkit (its ground truth and ``meta.mat``) or
    from a text file with one wnid a line, in the order of the file names.
    """
    if download:
        raise ConfigError("only mnist, cifar10 and cifar100 can be fetched, got --download.")
    train, test, classes = imagenet_splits(_need(data_dir, "imagenet"))
    return Source(train, test, classes, channels=3)


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
        raise ConfigError(unknown_name("source", name, SOURCES))


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
