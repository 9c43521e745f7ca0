"""ImageNet as it is published, as Kaggle gives it, and data sets laid out like it."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from raygrad.data.example_sets import FileExamples
from raygrad.data.found_files import FoundFiles, images_below
from raygrad.data.hidden import is_hidden
from raygrad.data.image_folders import Splits, class_folders, file_examples, keys_of
from raygrad.data.imagenet_labels import ValidationLabels, validation_labels
from raygrad.data.tar_ends import end_problem
from raygrad.errors import ConfigError, DataError

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_TOPS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")


@dataclass(frozen=True)
class _File:
    """An image: a file, or a member of a tar."""

    path: str
    name: str
    """The name of its file, which its key and its label are found by."""
    offset: int = -1
    size: int = 0


def imagenet_splits(root: str) -> Splits:
    """Returns training and test examples and the classes (wnids) of ILSVRC2012 and its like.

    The folder may be as it is published (class folders, class tars or the two tars, and the
    devkit), as Kaggle packs it (``ILSVRC/Data/CLS-LOC`` and ``LOC_val_solution.csv``), with
    Caffe's ``val.txt``, or tiny-imagenet's. The validation set is the test split. Keys are the
    published file names without their ending, such as ``n01440764_10026``.

    Raises:
        ConfigError: A folder or the labels of the validation set are missing, or do not agree.
    """
    top = _top(Path(root))
    found = FoundFiles()
    notes = _unused(top)
    train = list(_training(top, root, found, notes))
    classes = tuple(sorted({wnid for _, wnid in train}))
    number = {name: label for label, name in enumerate(classes)}
    val, said = _validation(top, root, number, found)
    unknown = sorted({wnid for _, wnid in val} - set(number))
    if unknown:
        raise ConfigError(f"every wnid of val must be in train, got {unknown[:3]}. Check the path.")
    splits = [_examples([(file, number[wnid]) for file, wnid in part]) for part in (train, val)]
    return Splits(splits[0], splits[1], classes, found, (*notes, *said))


def _unused(top: Path) -> list[str]:
    """Returns what to say of folders beside train and val, such as the test images."""
    others = [n for n in sorted(_folders(top)) if n not in ("train", "val", "data")]
    others = [name for name in others if "devkit" not in name.lower()]
    return [f"folders that are no split are left out: {', '.join(others)}"] if others else []


def is_imagenet(root: str) -> bool:
    """Tells whether a folder is laid out as ImageNet: its validation labels are in a table."""
    top = next((Path(root, one) for one in _TOPS if _has_training(Path(root, one))), None)
    if top is None:
        return False
    if (top / TRAIN_TAR).is_file() or any((top / "train").glob("n[0-9]*.tar")):
        return True
    flat = not [one for one in _folders(top / "val") if one != "images"]
    return flat and bool(_folders(top / "train")) and validation_labels(top, None) is not None


def _top(root: Path) -> Path:
    for one in _TOPS:
        if _has_training(root / one):
            return root / one
    raise ConfigError(
        f"a folder of class folders must be there, got no train in {root}. "
        f"Name the folder that holds train and val, or {TRAIN_TAR}."
    )


def _has_training(top: Path) -> bool:
    return (top / "train").is_dir() or (top / TRAIN_TAR).is_file()


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [one.name for one in os.scandir(folder) if one.is_dir() and not is_hidden(one.name)]


def _training(
    top: Path, root: str, found: FoundFiles, notes: list[str]
) -> Iterator[tuple[_File, str]]:
    """Yields the training images with their wnids: of folders, of class tars, or of the one tar."""
    folder = top / "train"
    tars = sorted(folder.glob("n[0-9]*.tar")) if folder.is_dir() else []
    if folder.is_dir() and not tars:
        for wnid in class_folders(folder, root, found):
            for path in images_below(root, str(folder / wnid), found):
                yield _File(path, os.path.basename(path)), wnid
    elif tars:
        notes += _refuse_others(folder, tars, root, found)
        for tar in tars:
            with open(tar, "rb") as stream:
                for file in _members(stream, str(tar)):
                    yield file, tar.stem
    else:
        with open(top / TRAIN_TAR, "rb") as stream:
            for inner in _members(stream, str(top / TRAIN_TAR)):
                for file in _members(stream, inner.path, inner):
                    yield file, inner.name.removesuffix(".tar")


def _refuse_others(folder: Path, tars: list[Path], root: str, found: FoundFiles) -> list[str]:
    """Puts files beside the tars of classes to the rejects; a class of its own is an error.

    Returns what to say of folders of the same classes.
    """
    twins = sorted(set(_folders(folder)) & {tar.stem for tar in tars})
    unpacked = sorted(set(_folders(folder)) - {tar.stem for tar in tars})
    if unpacked:
        raise ConfigError(
            f"train must hold folders or tars of classes, got {len(tars)} tars and the folder "
            f"{unpacked[0]}, which has none, in {folder}. Unpack every tar and move them away."
        )
    for path in sorted(set(folder.iterdir()) - set(tars)):
        if is_hidden(path.name):
            found.hide(root, str(path))
        elif not path.is_dir():
            found.refuse(root, str(path), "no tar of a class", is_lost=True)
    if not twins:
        return []
    return [f"{len(twins)} classes are tars and folders, such as {twins[0]}: the tars are read"]


def _members(stream: IO[bytes], path: str, inner: _File | None = None) -> list[_File]:
    """Returns the files of a tar, or of the tar that is a member of it.

    Raises:
        DataError: The tar is cut or none.
    """
    start = 0 if inner is None else inner.offset
    stop = os.fstat(stream.fileno()).st_size if inner is None else start + inner.size
    what = path if inner is None else f"{inner.name} of {path}"
    stream.seek(start)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            found = [
                _File(path, os.path.basename(one.name), one.offset_data, one.size)
                for one in tar
                if one.isreg()
            ]
            end = tar.offset
    except tarfile.TarError as error:
        raise DataError(f"a tar must be whole, got {error}, in {what}. Fetch it again.") from error
    if found and found[-1].offset + found[-1].size > stop:
        raise _cut_tar(f"{found[-1].name} cut", what)
    problem = end_problem(stream, end, stop, start)
    if problem is not None:
        raise _cut_tar(f"one that is not: {problem}", what)
    return found


def _cut_tar(what: str, path: str) -> DataError:
    return DataError(f"a tar must be whole, got {what}, in {path}. Fetch it again.")


def _validation(
    top: Path, root: str, number: dict[str, int], found: FoundFiles
) -> tuple[list[tuple[_File, str]], list[str]]:
    folder = top / "val"
    wnids = [name for name in _folders(folder) if name != "images"]
    if wnids:
        names = class_folders(folder, root, found)
        files = [
            (_File(path, os.path.basename(path)), name)
            for name in names
            for path in images_below(root, str(folder / name), found)
        ]
        return files, []
    if folder.is_dir():
        paths = images_below(root, str(folder), found)
        flat = [_File(path, os.path.basename(path)) for path in paths]
    elif (top / VAL_TAR).is_file():
        with open(top / VAL_TAR, "rb") as stream:
            flat = _members(stream, str(top / VAL_TAR))
    else:
        raise ConfigError(
            f"val must be a folder, or {VAL_TAR} beside train, got neither in {top}. "
            "Fetch the validation images."
        )
    labels = validation_labels(top, tuple(sorted(number)))
    if labels is None:
        raise ConfigError(
            f"a flat val folder must have its labels beside it, got none in {top}. Put one of "
            "LOC_val_solution.csv, val_annotations.txt, val.txt (file name and wnid a line) or the "
            "unpacked devkit there."
        )
    flat = sorted(flat, key=lambda file: file.name)
    table = os.path.relpath(labels.path, root)
    found.rejects = [one for one in found.rejects if one[0] != table]  # it may lie in val itself
    notes = [f"val: labels are those of {labels.path}"]
    missing = sorted(set(labels.by_name or ()) - {_stem(file) for file in flat})
    if missing:
        notes.append(f"val: {len(missing)} files of that table are not there, such as {missing[0]}")
    return _paired(flat, labels, root, found), notes


def _paired(
    files: list[_File], labels: ValidationLabels, root: str, found: FoundFiles
) -> list[tuple[_File, str]]:
    """Pairs files with their labels: by name where the table has names, by order otherwise."""
    if labels.by_name is None:
        if len(labels.in_order) != len(files):
            raise ConfigError(
                f"val must hold a file for each of its labels, got {len(files)} files and "
                f"{len(labels.in_order)} labels in {labels.path}. Fetch what is missing."
            )
        return list(zip(files, labels.in_order, strict=True))
    pairs = []
    for file in files:
        wnid = labels.by_name.get(_stem(file))
        if wnid is None:
            reason = f"no label: {os.path.basename(labels.path)} has no row of it"
            found.refuse(root, file.path, reason, is_lost=True)
        else:
            pairs.append((file, wnid))
    return pairs


def _stem(file: _File) -> str:
    return os.path.splitext(file.name)[0]


def _examples(files: list[tuple[_File, int]]) -> FileExamples:
    if any(file.offset < 0 for file, _ in files) or not files:
        return file_examples([(f.path, label) for f, label in files], [f.name for f, _ in files])
    return FileExamples(
        tuple(file.path for file, _ in files),
        tuple(keys_of([file.name for file, _ in files])),
        np.array([label for _, label in files], np.int64),
        np.array([file.size for file, _ in files], np.int64),
        np.array([file.offset for file, _ in files], np.int64),
    )
