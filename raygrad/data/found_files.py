"""The files below a folder: which are images, which are hidden, and which cannot be used."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from raygrad.data.hidden import is_hidden
from raygrad.data.shard_scan import IMAGE_EXTENSIONS, OTHER_IMAGE_EXTENSIONS
from raygrad.data.signatures import HEAD_BYTES, kind_of
from raygrad.data.signatures import IMAGE_EXTENSIONS as ENDINGS_OF_KINDS

ENDINGS = frozenset((*IMAGE_EXTENSIONS, *OTHER_IMAGE_EXTENSIONS))
"""Files with these endings are images; of others the first bytes tell."""

_UNREAD_IMAGES = frozenset(
    ("avif", "heic", "heif", "ppm", "pgm", "pnm", "jp2", "jxl", "cr2", "nef", "arw", "dng", "psd")
)


@dataclass
class FoundFiles:
    """What a walk through folders came upon."""

    rejects: list[tuple[str, str]] = field(default_factory=list)
    """Path below the root, and reason, of the files that are no usable image."""
    num_lost: int = 0
    """How many of these are, or should have been, images; a text beside photographs is none."""
    num_hidden: int = 0
    """Hidden files and folders, which were left out."""
    first_hidden: str = ""
    """One of them."""
    num_companions: int = 0
    """Files that belong to an image by their name, such as its caption."""

    def notes(self, num_used: int) -> list[str]:
        """Returns what the user should know of this: a line each."""
        notes = []
        if self.num_hidden:
            notes.append(
                f"{self.num_hidden} hidden files and folders left out, such as "
                f"{self.first_hidden!r}"
            )
        if self.num_companions:
            notes.append(f"{self.num_companions} files beside images of their name left out")
        if self.rejects:
            path, reason = self.rejects[0]
            notes.append(
                f"{num_used} files are images, {len(self.rejects)} are not and stand in the "
                f"rejects, such as {path!r}: {reason}"
            )
        return notes

    def hide(self, root: str, path: str) -> None:
        """Counts a hidden file or folder."""
        self.num_hidden += 1
        self.first_hidden = self.first_hidden or os.path.relpath(path, root)

    def refuse(self, root: str, path: str, reason: str, *, is_lost: bool) -> None:
        """Puts a file to the rejects."""
        name = os.path.relpath(path, root)
        self.rejects.append((name.encode(errors="backslashreplace").decode(), reason))
        self.num_lost += is_lost


def images_below(root: str, folder: str, found: FoundFiles) -> list[str]:
    """Returns the images below a folder, as torchvision's ImageFolder finds and orders them.

    Args:
        root: The data set's folder, which paths are told from.
        folder: The folder, at or below the root; links to folders are followed.
        found: Takes what is no image.
    """
    images = []
    for place, names in sorted(_walk(root, folder, found, frozenset())):
        chosen, others = [], []
        for name, is_file in sorted(names):
            path = os.path.join(place, name)
            if not is_file:
                reason = "a link to nothing" if os.path.islink(path) else "no regular file"
                found.refuse(root, path, reason, is_lost=True)
            elif name.rpartition(".")[2].lower() in ENDINGS:
                chosen.append(path)
            else:
                others.append(path)
        stems = {os.path.splitext(path)[0] for path in chosen} if others else set()
        for path in others:
            if os.path.splitext(path)[0] in stems:
                found.num_companions += 1
            elif _is_image(root, path, found):
                chosen.append(path)
        images += sorted(chosen)
    return images


def _walk(
    root: str, folder: str, found: FoundFiles, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yields each folder that is not hidden, with its files that are not: name, is it there."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            inside = list(entries)
    except OSError as error:
        found.refuse(root, folder, f"the folder cannot be read: {error.strerror}", is_lost=True)
        return
    own = (status.st_dev, status.st_ino)
    if own in above:
        return  # a link to a folder that this one is in
    names = []
    for entry in inside:
        if is_hidden(entry.name):
            found.hide(root, entry.path)
        elif entry.is_dir():
            yield from _walk(root, entry.path, found, above | {own})
        else:
            names.append((entry.name, entry.is_file()))
    yield folder, names


def _is_image(root: str, path: str, found: FoundFiles) -> bool:
    """Tells by its first bytes whether a file of an unknown ending is an image."""
    try:
        with open(path, "rb") as stream:
            kind = kind_of(stream.read(HEAD_BYTES))
    except OSError as error:
        found.refuse(root, path, f"the file cannot be read: {error.strerror}", is_lost=True)
        return False
    if kind in ENDINGS_OF_KINDS:
        return True
    is_lost = kind.endswith("image") or path.rpartition(".")[2].lower() in _UNREAD_IMAGES
    found.refuse(root, path, f"no image that can be read: {kind}", is_lost=is_lost)
    return False
