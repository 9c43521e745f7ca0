"""From what a user writes to the URLs of shards: braces, globs and lists, local or s3://."""

import fnmatch
from collections.abc import Iterable

from braceexpand import braceexpand
from pyarrow import fs

from raygrad.errors import ConfigError
from raygrad.storage import files

_WILDCARDS = frozenset("*?[")


def expand(urls: str | Iterable[str]) -> list[str]:
    """Returns the URLs that patterns stand for, in the order given; a glob's matches are sorted.

    Args:
        urls: One pattern or several, such as ``s3://bucket/train-{0000..1023}.tar``,
            ``shards/{train,extra}-*.tar`` or a plain path. ``*``, ``?`` and ``[...]`` stay within
            one folder name; braces need not exist to be expanded, a glob must match something.

    Raises:
        ConfigError: There is no pattern, braces do not close, a glob matches nothing, or a URL
            comes twice.
    """
    patterns = [urls] if isinstance(urls, str) else list(urls)
    found = [url for pattern in patterns for url in _expand_one(pattern)]
    if not found:
        raise ConfigError("files must be named, got none. Give a URL, a glob or a list.")
    seen: set[str] = set()
    for url in found:
        if url in seen:
            raise ConfigError(f"a file must be named once, got {url} twice. Remove one of them.")
        seen.add(url)
    return found


def _expand_one(pattern: str) -> list[str]:
    try:
        plain = list(braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(f"braces of a URL must close, got {pattern!r}.") from error
    return [url for one in plain for url in (_glob(one) if _WILDCARDS & set(one) else [one])]


def _glob(pattern: str) -> list[str]:
    """Lists the folder above the first wildcard and matches name by name, as a shell does."""
    parts = pattern.split("/")
    first = next(at for at, part in enumerate(parts) if _WILDCARDS & set(part))
    base, wanted = "/".join(parts[:first]), parts[first:]
    if files.is_s3(pattern) and len(parts[:first]) < 3:
        raise ConfigError(f"the bucket of a glob must be named in full, got {pattern!r}.")
    folder = base or ("/" if pattern.startswith("/") else ".")
    _, path = files.filesystem(folder)
    matches = []
    for info in files.list_infos(folder, recursive=len(wanted) > 1):
        names = info.path.removeprefix(path).strip("/").split("/")
        if (
            info.type == fs.FileType.File
            and len(names) == len(wanted)
            and all(map(fnmatch.fnmatchcase, names, wanted))
        ):
            matches.append("/".join(names))
    if not matches:
        raise ConfigError(f"a glob must match a file, got none for {pattern!r}. Check the path.")
    prefix = "" if folder == "." else folder.rstrip("/") + "/"
    return sorted(prefix + match for match in matches)
