"""Photographs in class folders, and ImageNet as it is published."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from raygrad.data.example_sets import FileExamples
from raygrad.errors import ConfigError, DataError

log = logging.getLogger("raygrad")

EXTENSIONS = (".jpg", ".jpeg", ".png")
OTHER_IMAGES = (".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".avif", ".heic")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
Splits = tuple[FileExamples, FileExamples, tuple[str, ...]]


def image_folder_splits(root: str) -> Splits:
    """Returns training and test examples and the classes of ``root/train`` and its test folder.

    Keys are paths below the root without their ending, so they say split, class and file; dots in
    a file's name become ``%2E``, because a key ends at a dot.

    Raises:
        ConfigError: A folder is missing, an image is of a kind that cannot be copied, or a class
            has no example or is in the test folder alone.
    """
    test = _test_folder(Path(root))
    classes = _class_folders(Path(root, "train"))
    splits = []
    for folder in ("train", test):
        unknown = set(_class_folders(Path(root, folder))) - set(classes)
        if unknown:
            raise ConfigError(
                f"every class must be a folder of train, got {sorted(unknown)[:3]} in {folder}."
            )
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in _images(Path(root, folder, name))
        ]
        names = _keys([os.path.relpath(path, root) for path, _ in files])
        splits.append(_file_examples(files, names))
    missing = np.flatnonzero(np.bincount(splits[0].labels, minlength=len(classes)) == 0)
    if len(missing):
        raise ConfigError(f"every class must have a file, got none in train/{classes[missing[0]]}.")
    return splits[0], splits[1], classes


def imagenet_splits(root: str) -> Splits:
    """Returns training and test examples and the classes (wnids) of ILSVRC2012.

    Keys are the published file names without their ending, such as ``n01440764_10026``.

    Raises:
        ConfigError: A folder or the labels of the validation set are missing, or do not agree.
    """
    classes = _class_folders(Path(root, "train"))
    number = {name: label for label, name in enumerate(classes)}
    splits = []
    for folder in ("train", "val"):
        if folder == "val" and not any(path.is_dir() for path in _entries(Path(root, folder))):
            files = _flat_validation(Path(root), number)
        else:
            names = _class_folders(Path(root, folder))
            if not set(names) <= set(number):
                raise ConfigError(f"every wnid of val must be in train, got {names[:3]} ...")
            files = [(path, number[n]) for n in names for path in _images(Path(root, folder, n))]
        splits.append(_file_examples(files, _keys([os.path.basename(path) for path, _ in files])))
    return splits[0], splits[1], classes


def _flat_validation(root: Path, number: dict[str, int]) -> list[tuple[str, int]]:
    """Pairs the files of ``val``, sorted, with the published labels in the same order."""
    paths = list(_images(root / "val"))
    wnids = _validation_wnids(root)
    if len(wnids) != len(paths):
        raise ConfigError(
            f"val must hold a file for each of its labels, got {len(paths)} files "
            f"and {len(wnids)} labels in {root}."
        )
    unknown = set(wnids) - set(number)
    if unknown:
        raise ConfigError(f"every wnid of val must be in train, got {sorted(unknown)[:3]}.")
    return [(path, number[wnid]) for path, wnid in zip(paths, wnids, strict=True)]


def _validation_wnids(root: Path) -> list[str]:
    lists = sorted(root.glob("*synset_labels.txt"))
    if lists:
        return lists[0].read_text().split()
    truths = [*sorted(root.glob(f"*devkit*/data/{GROUND_TRUTH}")), root / "data" / GROUND_TRUTH]
    for truth in truths:
        if truth.exists():
            by_id = _devkit_wnids(truth.parent / "meta.mat")
            return [by_id[int(line)] for line in truth.read_text().split()]
    raise ConfigError(
        f"a flat val folder must have its labels beside it, got none in {root}. Unpack the devkit "
        f"there, or add synset_labels.txt with one wnid a line."
    )


def _devkit_wnids(meta: Path) -> dict[int, str]:
    """Returns the wnid of each ILSVRC2012_ID, from the devkit's table of synsets."""
    from scipy.io import loadmat

    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}


def _test_folder(root: Path) -> str:
    found = [name for name in ("test", "val") if (root / name).is_dir()]
    if not found:
        raise ConfigError(f"the data folder must hold train and test or val, got {root}.")
    if len(found) == 2:
        log.warning("%s: test is the test split; val is left out", root)
    return found[0]


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in _entries(folder) if path.is_dir()))
    if not names:
        raise ConfigError(f"a folder of class folders must be there, got {folder}.")
    return names


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _images(folder: Path) -> Iterator[str]:
    """Yields the images below a folder as torchvision's ImageFolder finds and orders them."""
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        for name in sorted(names):
            extension = os.path.splitext(name)[1].lower()
            if extension in EXTENSIONS:
                yield os.path.join(place, name)
            elif extension in OTHER_IMAGES:
                raise ConfigError(f"images must be JPEG or PNG, got {place}/{name}. Convert it.")


def _keys(names: Sequence[str]) -> list[str]:
    """Returns a key for each file name: without its ending, unless two names differ in it alone."""
    stems = Counter(os.path.splitext(name)[0] for name in names)
    keys = []
    for name in names:
        stem = os.path.splitext(name)[0]
        keys.append(_quoted(stem if stems[stem] == 1 else name))
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"file names must be unique in the data set, got {twice!r} twice.")
    return keys


def _quoted(name: str) -> str:
    """Makes a key of a file name: dots of the last part and bytes that are no UTF-8 as ``%XX``."""
    folder, slash, last = name.rpartition("/")
    text = folder + slash + last.replace("%", "%25").replace(".", "%2E")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)


def _file_examples(files: Sequence[tuple[str, int]], names: Sequence[str]) -> FileExamples:
    return FileExamples(
        tuple(path for path, _ in files),
        tuple(names),
        np.array([label for _, label in files], np.int64),
        np.array([os.stat(path).st_size for path, _ in files], np.int64),
    )
