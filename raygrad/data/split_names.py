"""Which split a file or folder is of, by the words of its name."""

import re
from collections.abc import Sequence

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")

_WORDS = re.compile(r"[a-z]+")


def split_of(name: str) -> str:
    """Returns the split that a file's or folder's name says: train, test, val or nothing."""
    words = _WORDS.findall(name.lower())
    if any(word in TRAIN_NAMES for word in words):
        return "train"
    if any(word in ("test", "testing") for word in words):
        return "test"
    return "val" if any(word in TEST_NAMES for word in words) else ""


def split_of_path(parts: Sequence[str]) -> str:
    """Returns the split that a path says: of test/train-like.tar it is the folder's word."""
    return next((one for one in map(split_of, parts) if one), "")
