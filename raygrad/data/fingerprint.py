"""What a stage was made from, as a listing tells it: names, sizes, and times or ETags.

A listing is taken before anything is read, so that what changes meanwhile is noticed later. Where
the files are few bytes on local disk their content is hashed too: a folder that was copied, and so
has other times, is then still the same.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from raygrad.data.data_files import TABLE_OR_TAR, data_files
from raygrad.data.hidden import is_hidden
from raygrad.storage import files
from raygrad.storage.manifest import digest

CONTENT_BYTES = 64 * 2**20
"""Up to this many bytes together are read for their hash."""

_FILE = re.compile(rf"{TABLE_OR_TAR.pattern}|\.(csv|tsv)$", re.IGNORECASE)
"""A store is not asked whether what is called so is a folder."""
_MAX_NAMED = 50_000
"""Files are kept by name up to this many, as a listing in the run folder shall stay small."""

_SOURCE_FOLDERS = {
    "mnist": ("MNIST/raw",),
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
}
"""What of its data folder a source reads, where that is not all of it."""


@final
class Seen:
    """Files as they were when they were first looked at, for checks that follow on each other.

    A folder of very many shards takes seconds to list, on S3 also money: checks between which
    nothing is done take one look. Whoever makes one says by it for how long that is enough.
    """

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, str] | None] = {}

    def states(self, urls: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Returns what `files.states` does, of files that were seen as they were then."""
        urls = list(urls)
        new = [url for url in urls if url not in self._states]
        if new:
            self._states |= dict.fromkeys(new)
            self._states |= files.states(new)
        found = ((url, self._states[url]) for url in urls)
        return {url: state for url, state in found if state is not None}


@dataclass(frozen=True)
class Fingerprint:
    """Files by name: the size of each, and the time or ETag that tells its versions apart."""

    states: dict[str, tuple[int, str]]
    """Size in bytes and version, by name; a file that is not there is not in it."""
    places: Mapping[str, str]
    """Where each file is."""

    @property
    def num_bytes(self) -> int:
        """The size of all files together."""
        return sum(size for size, _ in self.states.values())

    @property
    def listing(self) -> str:
        """A hash of names, sizes and versions."""
        return digest(sorted([name, *state] for name, state in self.states.items()))

    def content(self) -> str | None:
        """Returns a hash of names and contents; None where that is more than is read for it."""
        places = [self.places[name] for name in self.states]
        if self.num_bytes > CONTENT_BYTES or not all(map(files.is_local, places)):
            return None
        hasher = hashlib.blake2b(digest_size=16)
        for name in sorted(self.states):
            data = files.read_bytes(self.places[name])
            hasher.update(f"{len(name)} {name} {len(data)} ".encode() + data)
        return hasher.hexdigest()

    def without_versions(self) -> "Fingerprint":
        """Returns the same files, told apart by size alone."""
        sizes = {name: (size, "") for name, (size, _) in self.states.items()}
        return Fingerprint(sizes, self.places)

    def stored(self, *, all_named: bool = False) -> dict[str, Any]:
        """Returns the fingerprint as plain values.

        Args:
            all_named: Keep every file by name, however many there are.
        """
        named = self.states if all_named or len(self.states) <= _MAX_NAMED else None
        return {
            "listing": self.listing,
            "content": self.content(),
            "num_files": len(self.states),
            "num_bytes": self.num_bytes,
            "files": named,
        }


def fingerprint(places: Mapping[str, str], seen: Seen | None = None) -> Fingerprint:
    """Lists files, each named by a key of `places`; those that are not there are left out."""
    states = (seen or Seen()).states(places.values())
    found = {name: states[url] for name, url in places.items() if url in states}
    return Fingerprint(found, places)


def named_fingerprint(urls: Iterable[str], seen: Seen | None = None) -> Fingerprint:
    """Lists files as the user named them, and what is in the folders among them, by full URL."""
    places = []
    for url in map(files.absolute, urls):
        if files.is_local(url) and os.path.isdir(url):
            places += [os.path.join(folder, name) for folder, name in _files_below(url)]
        elif not _FILE.search(url) and files.is_folder(url):
            places += data_files(url, TABLE_OR_TAR)
        else:
            places.append(url)
    return fingerprint({url: url for url in places}, seen)


def source_fingerprint(source: str, folder: str) -> Fingerprint:
    """Lists the files that a source reads from its data folder, by their paths in it."""
    places, states = {}, {}
    for top in _SOURCE_FOLDERS.get(source, ("",)):
        for place, name in _files_below(os.path.join(folder, top)):
            path = os.path.join(place, name)
            try:
                info = os.stat(path)
            except OSError:  # a dangling link is no file
                continue
            relative = os.path.relpath(path, folder)
            places[relative] = path
            states[relative] = info.st_size, str(info.st_mtime_ns)
    return Fingerprint(states, places)


def _was_hidden(name: str) -> bool:
    """Tells whether a file is one that only an older raygrad listed, which listed hidden ones.

    Args:
        name: As it was listed: below the data folder, or a whole URL.
    """
    return is_hidden(os.path.basename(name) if files.is_absolute(name) else name)


def _files_below(folder: str) -> Iterator[tuple[str, str]]:
    """Yields folder and name of the files that are read: what is hidden comes and goes unseen."""
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [name for name in inner if not is_hidden(name)]
        yield from ((place, name) for name in names if not is_hidden(name))


def difference(stored: Mapping[str, Any], now: Fingerprint) -> str | None:
    """Returns how files differ from what was recorded of them, None where they do not."""
    if stored["listing"] == now.listing:
        return None
    was = stored["files"]
    if was is None:
        return (
            f"{stored['num_files']:,} files of {stored['num_bytes']:,} bytes, now "
            f"{len(now.states):,} of {now.num_bytes:,} or of another time"
        )
    kinds = {
        "new": [name for name in now.states if name not in was],
        "removed": [n for n in was if n not in now.states and not _was_hidden(n)],
        "changed": [n for n, state in now.states.items() if n in was and tuple(was[n]) != state],
    }
    sizes = any(was[name][0] != now.states[name][0] for name in kinds["changed"])
    maybe_same = not (kinds["new"] or kinds["removed"] or sizes)
    if maybe_same and stored["content"] is not None and stored["content"] == now.content():
        return None
    found = [
        f"{len(names):,} {kind} (such as {names[0]})" for kind, names in kinds.items() if names
    ]
    return ", ".join(found) or None
