"""The rows of a score table of very many parts once more, in one file, which is soon opened.

It is of the parts as they were, each of its size and version, and is not read for any others. A
table without it is read part by part.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii as _as_json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.data.small_files import tables_of
from raygrad.data.small_tables import SmallTables
from raygrad.progress import Progress
from raygrad.storage import files

log = logging.getLogger("raygrad")

ROWS = "_rows.parquet"
MIN_PARTS = 1000
"""Fewer parts are opened as quickly as they are gathered."""

_META = b"raygrad.parts"
_ROW_GROUP = 2**16


def gather_rows(
    url: str,
    parts: Sequence[str],
    states: Mapping[str, tuple[int, str]],
    num_rows: Sequence[int],
    map_fn: Callable[..., Iterable[Any]] = map,
) -> None:
    """Writes the rows of all parts into one file, where they are many.

    Args:
        url: The folder of the table.
        parts: The names of its parts, in the order in which the table is read.
        states: Size and version of the files that are there, by name, listed before this: of a part
            that is written again meanwhile, the file is not taken for what it then is.
        num_rows: How many rows each part has.
        map_fn: Like `map`; reads parts in parallel when it is a parallel map.
    """
    if len(parts) < MIN_PARTS or gathered_rows(url, parts, states) is not None:
        return
    said = {_META: _digest(parts, states).encode()}
    schema = _read(files.join(url, parts[0])).schema
    try:
        with (
            files.open_output(files.join(url, ROWS)) as stream,
            pq.ParquetWriter(stream, schema.with_metadata(said)) as writer,
        ):
            urls = [files.join(url, name) for name in parts]
            tables = tables_of(urls, num_rows, _read, map_fn)
            for table in _groups(tables, Progress("score", len(urls), "parts gathered")):
                writer.write_table(table, row_group_size=_ROW_GROUP)
    except (pa.ArrowInvalid, ValueError) as error:  # columns that differ stay in their parts
        log.warning("score: parts are not gathered, and are read one by one: %s", error)


def gathered_rows(
    url: str, parts: Sequence[str], states: Mapping[str, tuple[int, str]]
) -> str | None:
    """Returns the file of a table's rows, None where there is none of these parts.

    Args:
        url: The folder of the table.
        parts: The names of its parts, in order.
        states: Size and version of the files that are there, by name.
    """
    if ROWS not in states:
        return None
    try:
        with files.open_input(files.join(url, ROWS)) as stream:
            metadata = pq.read_metadata(stream).metadata or {}
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        log.warning("score: %s cannot be read and every part is: %s", ROWS, error)
        return None
    if metadata.get(_META) != _digest(parts, states).encode():
        return None
    return files.join(url, ROWS)


def _digest(parts: Sequence[str], states: Mapping[str, tuple[int, str]]) -> str:
    text = f"[{', '.join(_listed(name, states.get(name)) for name in parts)}]"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _listed(name: str, state: tuple[int, str] | None) -> str:
    """Returns `[name, size, version]` as JSON has it.

    Lists of very many parts would have Python's collector look through all that is there, again
    and again, which takes longer than the rest; texts are none of its business.
    """
    if state is None:
        return f"[{_as_json(name)}]"
    return f"[{_as_json(name)}, {state[0]}, {_as_json(state[1])}]"


def _groups(tables: Iterable[pa.Table], progress: Progress) -> Iterator[pa.Table]:
    """Yields the rows of all parts in order, about `_ROW_GROUP` at a time."""
    waiting = SmallTables()
    for table in tables:
        waiting.add(table)
        progress.add(1)
        if waiting.num_rows >= _ROW_GROUP:
            yield waiting.take()
    if waiting.num_rows:
        yield waiting.take()


def _read(url: str) -> pa.Table:
    stream = pa.BufferReader(files.read_bytes(url))
    return pq.ParquetFile(stream).read(use_threads=False).replace_schema_metadata(None)
