"""The labels of ImageNet's validation set, in the files that they come in.

A table that names the files goes before a list in their order: an order can be another's.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raygrad.errors import ConfigError

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_KAGGLE = "LOC_val_solution.csv"
_LEVELS_UP = 3
"""Kaggle's table stands so far above the folder of the images."""


@dataclass(frozen=True)
class ValidationLabels:
    """The wnids of the validation images."""

    path: str
    """The file that they are from."""
    by_name: dict[str, str] | None
    """By file name without ending; None where the file has no names."""
    in_order: Sequence[str] = ()
    """In the order of the sorted file names."""


def validation_labels(top: Path, classes: Sequence[str] | None) -> ValidationLabels | None:
    """Returns the labels of the flat validation set of a folder, None where there are none.

    Args:
        top: The folder that holds train and val.
        classes: The wnids of train, sorted, which numbers count; None asks only for a table with
            names, and does not read it.

    Raises:
        ConfigError: A file of labels is not what its name says.
    """
    above = list(top.absolute().parents)[:_LEVELS_UP]
    for name, read in _BY_NAME:
        for place in (top, top / "val", *(above if name == _KAGGLE else ())):
            path = place / name
            if path.is_file():
                if classes is None:
                    return ValidationLabels(str(path), {})
                return ValidationLabels(str(path), read(path, classes))
    if classes is None:
        return None
    return _in_order(top)


def _kaggle(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Reads ``ImageId,PredictionString``: the wnid is the first word of the prediction."""
    with open(path, newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if not rows or any(len(row) < 2 or not row[1].split() for row in rows):
        raise _wrong(path, "ImageId,PredictionString")
    return _by_name(path, [(row[0], row[1].split()[0]) for row in rows[1:]])


def _tiny(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Reads file name, wnid and box, with tabs between."""
    rows = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise _wrong(path, "file name, tab, wnid")
    return _by_name(path, [(os.path.splitext(row[0])[0], row[1].strip()) for row in rows])


def _caffe(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Reads file name and label: a wnid, or its number among the sorted wnids."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise _wrong(path, "file name, space, label")
    names = [os.path.splitext(os.path.basename(row[0]))[0] for row in rows]
    labels = [row[1] for row in rows]
    # Names go before numbers: folders 0 to 11 sort as 0, 1, 10, 11, 2.
    if set(labels) <= set(classes) or not all(label.isdecimal() for label in labels):
        return _by_name(path, list(zip(names, labels, strict=True)))
    synsets = next(
        (one for one in (path.parent / "synsets.txt", path.parent / "synset.txt") if one.is_file()),
        None,
    )
    if synsets is None and any(name.isdecimal() for name in classes):
        strange = sorted(set(labels) - set(classes))
        raise ConfigError(
            f"labels of {path} must be folders of train where those are numbers, got "
            f"{strange[:3]}: numbers could be names of classes and count them. Put synsets.txt, a "
            "class a line in their order, beside it."
        )
    wnids = list(classes) if synsets is None else synsets.read_text().split()
    if max(map(int, labels), default=0) >= len(wnids):
        raise ConfigError(
            f"numbers of {path} must count the classes, got {max(map(int, labels))} for "
            f"{len(wnids)} of train. Put synsets.txt, a wnid a line in their order, beside it."
        )
    wanted = [wnids[int(label)] for label in labels]
    return _by_name(path, list(zip(names, wanted, strict=True)))


def _by_name(path: Path, rows: list[tuple[str, str]]) -> dict[str, str]:
    """Returns the wnid of each name; a name may stand twice, with one wnid."""
    wnids = dict(rows)
    for name, wnid in rows:
        if wnids[name] != wnid:
            raise ConfigError(
                f"a file must have one label, got {wnid} and {wnids[name]} for {name} in {path}. "
                "Fetch it again."
            )
    return wnids


_BY_NAME = (
    (_KAGGLE, _kaggle),
    ("val_annotations.txt", _tiny),
    ("val.txt", _caffe),
)


def _in_order(top: Path) -> ValidationLabels | None:
    lists = sorted(top.glob("*synset_labels.txt"))
    if lists:
        return ValidationLabels(str(lists[0]), None, lists[0].read_text().split())
    truths = [*sorted(top.glob(f"*devkit*/data/{GROUND_TRUTH}")), top / "data" / GROUND_TRUTH]
    for truth in truths:
        if truth.exists():
            by_id = _devkit_wnids(truth.parent / "meta.mat")
            wnids = [by_id[int(line)] for line in truth.read_text().split()]
            return ValidationLabels(str(truth), None, wnids)
    return None


def _devkit_wnids(meta: Path) -> dict[int, str]:
    """Returns the wnid of each ILSVRC2012_ID, from the devkit's table of synsets."""
    from scipy.io import loadmat

    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}


def _wrong(path: Path, what: str) -> ConfigError:
    return ConfigError(f"lines of {path} must hold {what}, got others. Fetch it again.")
