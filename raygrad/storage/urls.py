"""From what a user writes to the URLs of files: braces, globs and lists, local or in a store."""

import fnmatch
import logging
import re
from collections.abc import Iterable, Iterator

from braceexpand import braceexpand

from raygrad.errors import ConfigError
from raygrad.storage import files

log = logging.getLogger("raygrad")

_WILDCARD = re.compile(r"[*?[]")


def expand(urls: str | Iterable[str]) -> list[str]:
    """Returns the URLs that patterns stand for, in the order given; a glob's matches are sorted.

    Args:
        urls: One pattern or several, such as ``s3://bucket/train-{0000..1023}.tar``,
            ``shards/{train,extra}-*.tar`` or a plain path. ``*``, ``?`` and ``[...]`` stay within
            one folder name, and match no hidden one; braces need not exist to be expanded, a glob
            must match something.

    Raises:
        ConfigError: There is no pattern, braces do not close, a glob matches nothing, a URL comes
            twice, or is of a kind that cannot be read.
    """
    patterns = [urls] if isinstance(urls, str) else list(urls)
    found = [url for pattern in patterns if pattern.strip() for url in _expand_one(pattern)]
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
    return [url for one in plain for url in _matches(files.checked_url(one))]


def _matches(url: str) -> list[str]:
    # A question mark behind https:// begins a query; a page cannot be listed anyhow.
    if files.is_page(url) or not _WILDCARD.search(url):
        if files.is_page(url) and "*" in url:
            raise ConfigError(
                f"files of a web server must be named without *, got {url!r}. "
                "Use braces, such as train-{0000..0099}.tar."
            )
        return [url]
    return _glob(url)


def _glob(pattern: str) -> list[str]:
    """Matches level by level, as a shell does: a folder is listed if its own name matched."""
    parts = pattern.split("/")
    first = next(at for at, part in enumerate(parts) if _WILDCARD.search(part))
    if not files.is_local(pattern) and first < 3:
        raise ConfigError(f"the bucket of a glob must be named in full, got {pattern!r}.")
    found = sorted(_below("/".join(parts[:first]), parts[first:], rooted=first > 0))
    if not found:
        raise ConfigError(f"a glob must match a file, got none for {pattern!r}. Check the path.")
    return found


def _below(base: str, parts: list[str], *, rooted: bool = True) -> Iterator[str]:
    """Yields the files below a folder whose names match the parts, one part a level."""
    part, rest = parts[0], parts[1:]
    prefix = f"{base}/" if rooted else ""
    if not _WILDCARD.search(part):
        url = prefix + part
        if rest:
            yield from _below(url, rest)
        elif _is_there(url):
            yield url
        return
    literal = part[: _WILDCARD.search(part).start()]  # type: ignore[union-attr]  # it has one
    try:
        entries = files.list_entries(prefix or ".", literal)
    except PermissionError:
        log.warning("%s may not be read: what it holds is left out", base or prefix)
        return
    for name, is_folder in entries:
        hidden = name.startswith(".") and not part.startswith(".")
        if hidden or is_folder != bool(rest) or not fnmatch.fnmatchcase(name, part):
            continue
        if rest:
            yield from _below(prefix + name, rest)
        else:
            yield prefix + name


def _is_there(url: str) -> bool:
    try:
        return files.is_file(url)
    except PermissionError:
        log.warning("%s may not be read: it is left out", url)
        return False
