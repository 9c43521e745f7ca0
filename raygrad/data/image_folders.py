"""Photographs in class folders, with splits or without."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raygrad.data.data_files import TABLE_OR_TAR
from raygrad.data.example_sets import FileExamples
from raygrad.data.found_files import ENDINGS, FoundFiles, images_below
from raygrad.data.hidden import is_hidden
from raygrad.data.split_names import TEST_NAMES, TRAIN_NAMES, split_of
from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import key_hashes

_LOOKED_AT = 8
"""Of so many folders it is looked whether they hold the same ones."""


@dataclass(frozen=True)
class Splits:
    """A data set of files, before it is written."""

    train: FileExamples
    """Training examples, validation included."""
    test: FileExamples
    """Test examples."""
    classes: tuple[str, ...]
    """The name of each class."""
    found: FoundFiles
    """What else was there."""
    notes: tuple[str, ...] = ()
    """What was decided for the user: a line each."""


def image_folder_splits(root: str, *, test_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Returns the examples and classes of ``root/train`` and its test folder, or of ``root``.

    Where there are class folders alone, a share of the images, by a hash of their keys, is the
    test split. A class is a folder, numbered in sorted order; what is hidden is none. Keys are
    paths below the root without their ending, so they say split, class and file; dots in a file's
    name become ``%2E``, because a key ends at a dot.

    Args:
        root: The folder.
        test_fraction: The share that becomes the test split where there is no folder of it.
        seed: Changes which ones.

    Raises:
        ConfigError: There are no class folders, or a class has no example or is in the test folder
            alone.
    """
    train, test, notes = split_folders(Path(root))
    found = FoundFiles()
    classes = class_folders(Path(root, train), root, found)
    examples = _labelled(root, train, classes, found)
    missing = np.flatnonzero(np.bincount(examples.labels, minlength=len(classes)) == 0)
    if len(missing):
        where = os.path.join(train, classes[missing[0]])
        raise ConfigError(
            f"every class must have a file, got none in {where}. Remove the folder, or fill it."
        )
    if test is None:
        is_test = hashed_share(examples.keys(), test_fraction, seed)
        if test_fraction:
            notes.append(
                f"no folder of test images: {is_test.sum()} of {len(examples)}, chosen by a hash "
                "of their keys, are the test split"
            )
        held_out = examples.take(np.flatnonzero(is_test))
        examples = examples.take(np.flatnonzero(~is_test))
        return Splits(examples, held_out, classes, found, tuple(notes))
    unknown = set(class_folders(Path(root, test), root, found)) - set(classes)
    if unknown:
        raise ConfigError(
            f"every class must be a folder of {train}, got {sorted(unknown)[:3]} in {test}."
        )
    return Splits(examples, _labelled(root, test, classes, found), classes, found, tuple(notes))


def hashed_share(keys: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Tells which keys are in a share of them that depends on (seed, key) alone."""
    hashes = key_hashes([f"test/{seed}/{key}" for key in keys])
    return hashes < np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def split_folders(root: Path) -> tuple[str, str | None, list[str]]:
    """Returns the folders of training and test images below the root, and what was decided.

    The first is empty where the root itself holds the classes, the second None where there is no
    folder of test images in classes. Splits are called train, test, val, or by names with one of
    these words, such as training_set, where every folder is.

    Raises:
        ConfigError: There is no folder, or folders of splits of which none or several are to be
            trained on.
    """
    if not root.is_dir():
        raise ConfigError(f"the data folder must be there, got {root}. Check the path.")
    folders = _folders(root)
    lower = {name.lower(): name for name in folders}
    train = next((lower[name] for name in TRAIN_NAMES if name in lower), None)
    candidates = [lower[name] for name in TEST_NAMES if name in lower]
    notes: list[str] = []
    if train is None or not _folders(root / train):  # a train may be a class, beside bus and car
        train, candidates = _splits_by_words(root, folders)
        if train is None:
            return "", None, _notes_on_alike(root, folders)
        notes = [f"{train} is the training split"]
    usable = [name for name in candidates if _folders(root / name)]
    others = sorted({*folders} - {train, *candidates})
    notes += [f"folders that are no split are left out: {', '.join(others)}"] if others else []
    loose = [one.name for one in sorted(root.iterdir()) if one.is_file() and _is_data(one.name)]
    if loose:
        notes.append(f"{len(loose)} files beside the splits are left out, such as {loose[0]}")
    notes += [
        f"{name} holds no class folders: it is left out"
        for name in candidates
        if name not in usable
    ]
    notes += [f"{usable[0]} is the test split; {name} is left out" for name in usable[1:]]
    return train, usable[0] if usable else None, notes


def _splits_by_words(root: Path, folders: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the folders of training and of test where the name of every folder has such a word.

    Those that hold no folders are classes, whatever they are called.
    """
    if not folders or not all(split_of(name) and _folders(root / name) for name in folders):
        return None, []
    trains = [name for name in folders if split_of(name) == "train"]
    if len(trains) != 1:
        raise ConfigError(
            f"one folder of splits must be of training, got {', '.join(folders[:5])} in {root}. "
            "Call it train, or name the folder that holds the classes."
        )
    tests = [name for name in folders if name not in trains]
    return trains[0], sorted(tests, key=lambda name: (split_of(name) != "test", name))


def _notes_on_alike(root: Path, folders: Sequence[str]) -> list[str]:
    """Returns what to say where classes hold the same folders: they may be splits by odd names."""
    inner = [_folders(root / name) for name in folders[:_LOOKED_AT]]
    if len(inner) < 2 or len(inner[0]) < 2 or any(one != inner[0] for one in inner):
        return []
    return [
        f"the classes are {', '.join(folders[:3])}{', ...' if len(folders) > 3 else ''}, each of "
        f"which holds the folders {', '.join(inner[0][:3])}: if these are the classes, call the "
        "folders above them train and test"
    ]


def _is_data(name: str) -> bool:
    is_image = name.rpartition(".")[2].lower() in ENDINGS
    return not is_hidden(name) and bool(is_image or TABLE_OR_TAR.search(name))


def class_folders(folder: Path, root: str, found: FoundFiles) -> tuple[str, ...]:
    """Returns the class folders of a folder in sorted order; files beside them are refused.

    Raises:
        ConfigError: There are none.
    """
    names, entries = [], list(os.scandir(folder)) if folder.is_dir() else []
    for entry in sorted(entries, key=lambda one: one.name):
        if is_hidden(entry.name):
            found.hide(root, entry.path)
        elif entry.is_dir():
            names.append(entry.name)
        else:
            is_lost = os.path.splitext(entry.name)[1].lower() in (".jpg", ".jpeg", ".png", ".webp")
            found.refuse(root, entry.path, "no class folder", is_lost=is_lost)
    if not names:
        raise ConfigError(
            f"a folder of class folders must be there, got {folder}. "
            "Put the images of each class into a folder, or give shards and --labels."
        )
    return tuple(names)


def file_examples(files: Sequence[tuple[str, int]], names: Sequence[str]) -> FileExamples:
    """Returns files with their labels as examples, under the keys that belong to their names."""
    return FileExamples(
        tuple(path for path, _ in files),
        tuple(keys_of(names)),
        np.array([label for _, label in files], np.int64),
        np.array([os.stat(path).st_size for path, _ in files], np.int64),
    )


def keys_of(names: Sequence[str]) -> list[str]:
    """Returns a key for each file name: without its ending, unless two names differ in it alone."""
    stems = Counter(os.path.splitext(name)[0] for name in names)
    keys = []
    for name in names:
        stem = os.path.splitext(name)[0]
        keys.append(quoted(stem if stems[stem] == 1 else name))
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"file names must be unique in the data set, got {twice!r} twice.")
    return keys


def _labelled(root: str, split: str, classes: Sequence[str], found: FoundFiles) -> FileExamples:
    files = [
        (path, label)
        for label, name in enumerate(classes)
        if (folder := Path(root, split, name)).is_dir()
        for path in images_below(root, str(folder), found)
    ]
    return file_examples(files, [os.path.relpath(path, root) for path, _ in files])


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(one.name for one in entries if one.is_dir() and not is_hidden(one.name))


def quoted(name: str) -> str:
    """Makes a key of a file name: dots of the last part and bytes that are no UTF-8 as ``%XX``.

    Args:
        name: A path below the data set's root.
    """
    folder, slash, last = name.rpartition("/")
    text = folder + slash + last.replace("%", "%25").replace(".", "%2E")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)
