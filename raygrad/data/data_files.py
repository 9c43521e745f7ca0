"""The shards or tables of a folder: a look that stays cheap, and all of them where it finds one."""

import os
import re
from collections.abc import Iterator

from raygrad.data.hidden import is_hidden
from raygrad.storage import files

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


def unused_folders(folder: str, used: list[str]) -> list[str]:
    """Returns the folders right in a folder that hold none of the files that are used."""
    tops = {url.removeprefix(folder).strip("/").split("/")[0] for url in used}
    return [
        name
        for name, is_folder in files.list_entries(folder)
        if is_folder and name not in tops and not is_hidden(name)
    ]


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
