"""Tables of very many small files in turn, read several a task.

A request to a store costs who makes it a millisecond or two of CPU, whatever it is for. Where there
are thousands of files of a few rows, others read them and send the rows of many at once.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

MANY = 1000
"""Fewer files are read sooner here than a process is there for them."""

_AHEAD = 16
"""Files that are read at the same time; a store answers each after some hundredths of a second."""
_FILES, _ROWS = 32, 2**12
"""A task reads so many files, of so many rows together unless one alone has more."""
_LEAST = 4
"""Files of which fewer go into a task are large: they are best read where they are needed."""


def tables_of(
    urls: Sequence[str],
    num_rows: Sequence[int],
    read: Callable[[str], pa.Table],
    map_fn: Callable[..., Iterable[Any]] = map,
) -> Iterator[pa.Table]:
    """Yields the table of one file after the other, some of them read ahead.

    Args:
        urls: The files.
        num_rows: About how many rows each has, by which they are put together.
        read: Reads one; a plain function, all of whose tables have the same columns.
        map_fn: Like `map`; reads files in parallel when it is a parallel map.
    """
    groups = _groups(urls, num_rows)
    if len(urls) < MANY or len(groups) * _LEAST > len(urls):
        with ThreadPoolExecutor(_AHEAD) as pool:
            for start in range(0, len(urls), _AHEAD):
                yield from pool.map(read, urls[start : start + _AHEAD])
        return
    for lengths, together in map_fn(functools.partial(_together, read), groups):
        start = 0
        for length in lengths:
            yield together.slice(start, length)
            start += length


def _groups(urls: Sequence[str], num_rows: Sequence[int]) -> list[list[str]]:
    """Returns the files in their order, cut into what a task reads."""
    groups: list[list[str]] = []
    rows = 0
    for url, count in zip(urls, num_rows, strict=True):
        rows += count
        if not groups or len(groups[-1]) == _FILES or rows > _ROWS:
            groups.append([])
            rows = count
        groups[-1].append(url)
    return groups


def _together(read: Callable[[str], pa.Table], urls: Sequence[str]) -> tuple[list[int], pa.Table]:
    """Returns how many rows each file has, and the rows of all."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        tables = list(pool.map(read, urls))
    return [table.num_rows for table in tables], pa.concat_tables(tables).combine_chunks()
