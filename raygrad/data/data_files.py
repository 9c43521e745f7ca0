"""The shards or tables of a folder: a look that stays cheap, and all of them where it finds one."""

import os
import re
from collections.abc import Iterator, Sequence

from raygrad.data.hidden import is_hidden
from raygrad.data.shard_scan import IMAGE_EXTENSIONS, OTHER_IMAGE_EXTENSIONS
from raygrad.storage import files

TAR = re.compile(r"\.(tar(\.(gz|zst|zstd|bz2|xz|lz4))?|tgz|tzst|tbz2?|txz)$", re.IGNORECASE)
TABLE_OR_TAR = re.compile(rf"({TAR.pattern[:-1]}|\.parquet|\.arrow)$", re.IGNORECASE)

_IMAGES = "|".join((*IMAGE_EXTENSIONS, *OTHER_IMAGE_EXTENSIONS))
_DATA = re.compile(
    rf"{TABLE_OR_TAR.pattern}|\.({_IMAGES}|part|partial|crdownload|download|tmp)$", re.IGNORECASE
)
_DEPTH, _MOST_FOLDERS = 2, 64
"""How deep, and into how many folders of each, the look goes: class folders can be thousands."""


def data_files(folder: str, pattern: re.Pattern[str]) -> list[str]:
    """Returns the files of a folder, and of the folders within it, whose names match; sorted.

    Where a look into some folders finds none, there are none: folders of classes are not all
    walked through. Where it finds one, none of the others is missed.

    Args:
        folder: The folder; there need not be one. What is hidden in it is passed over.
        pattern: Is searched for in names of files.

    Raises:
        PermissionError: A folder may not be read.
    """
    look = _Walk(pattern, _DEPTH, _MOST_FOLDERS)
    found = list(look.files_in(folder.rstrip("/")))
    if found and look.is_cut:
        found = list(_Walk(pattern).files_in(folder.rstrip("/")))
    return sorted(found)


def left_out(folder: str, used: Sequence[str]) -> list[str]:
    """Returns what lies beside the files that are used and could be data too; sorted.

    These are folders that hold none of them, and beside them tars, tables and images, and files
    that are not fetched to their end. A table that bears a tar's name tells of it.

    Args:
        folder: The folder that was named.
        used: What is used of it. Of very many folders that hold some, the first are looked at.
    """
    top = folder.rstrip("/")
    places = {url.rsplit("/", 1)[0] for url in used}
    inside = {top, *(above for one in places for above in _up_to(top, one))}
    known, stems = set(used), {TABLE_OR_TAR.sub("", url) for url in used}
    found = []
    for place in sorted(inside)[:_MOST_FOLDERS]:
        for name, is_folder in files.list_entries(place):
            url = files.join(place, name)
            if is_hidden(name) or url in known or url in inside:
                continue
            is_told_of = TABLE_OR_TAR.sub("", url) in stems
            if is_folder or (_DATA.search(name) and not is_told_of):
                found.append(url.removeprefix(top).strip("/"))
    return sorted(found)


def _up_to(top: str, folder: str) -> Iterator[str]:
    """Yields a folder and those above it, as far as the top, which it is in."""
    while folder != top and folder.startswith(f"{top}/"):
        yield folder
        folder = folder.rsplit("/", 1)[0]


class _Walk:
    """Goes through a folder.

    Args:
        pattern: Of the files.
        depth: How many levels of folders are gone into; None for all.
        most: How many folders of each folder; None for all.
    """

    def __init__(
        self, pattern: re.Pattern[str], depth: int | None = None, most: int | None = None
    ) -> None:
        self._pattern, self._depth, self._most = pattern, depth, most
        self.is_cut = False
        """Whether there were folders that it did not go into."""

    def files_in(self, folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
        """Yields the files of a folder that is inside those above."""
        own = os.path.realpath(folder) if files.is_local(folder) else folder
        if own in above:
            return  # a link to a folder that this one is in
        inner = []
        for name, is_folder in files.list_entries(folder):
            if is_hidden(name):
                continue
            if is_folder:
                inner.append(name)
            elif self._pattern.search(name):
                yield files.join(folder, name)
        taken = inner[: self._most]
        if self._depth is not None and len(above) >= self._depth:
            taken = []
        self.is_cut |= len(taken) < len(inner)
        for name in taken:
            yield from self.files_in(files.join(folder, name), (*above, own))
