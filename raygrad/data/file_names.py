"""The file names of examples, with their endings: as their folder has them, else their shards."""

import logging
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from raygrad.config import DataConfig
from raygrad.data.image_folders import quoted
from raygrad.data.index import Index
from raygrad.storage import files
from raygrad.storage.ranges import HEADER_BYTES

log = logging.getLogger("raygrad")

MAX_REQUESTS = 20_000
"""A name in a store is a request; of more examples than this their keys are given."""

_IN_FLIGHT = 16
_LONG_NAME, _PAX = b"L", b"x"
_PAX_PATH = re.compile(rb"(?:^|\n)\d+ path=([^\n]*)\n")


def file_names(index: Index, rows: pa.Table, folder: str | None = None) -> list[str]:
    """Returns the name of each example's image, in the order of the rows.

    Of a folder that was prepared it is the path below it, by which users find the file: shards have
    endings in lower case and names as keys need them. Of shards it is the name in the header;
    where that does not hold it (very long names, compressed tars) it is the key.

    Args:
        index: The data set.
        rows: Rows of `index.examples`.
        folder: Local folder of class folders that the shards were made of; None for none. What is
            not there any more has its shard's name.
    """
    names = _names_in_shards(index, rows)
    if folder is None or not os.path.isdir(folder):
        return names
    keys = rows["key"].to_pylist()
    there = _names_in_folder(folder, {key.rpartition("/")[0] for key in keys})
    return [_original(there.get(key, ()), name) for key, name in zip(keys, names, strict=True)]


def folder_of(data: DataConfig) -> str | None:
    """Returns the local folder that may hold a run's class folders, None for what is no folder."""
    named = [*data.tars] if data.tars else [data.data_dir]
    place = named[0] if len(named) == 1 else None
    return files.filesystem(place)[1] if place and files.is_local(place) else None


def _names_in_folder(root: str, folders: Iterable[str]) -> dict[str, list[str]]:
    """Returns the files of some folders, as paths below the root, by the keys they may have."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        try:
            entries = sorted(one.name for one in os.scandir(os.path.join(root, folder)))
        except OSError:  # gone, or named by bytes that are no text: its files have other names
            continue
        for entry in entries:
            name = f"{folder}/{entry}" if folder else entry
            for key in {quoted(os.path.splitext(name)[0]), quoted(name)}:
                found.setdefault(key, []).append(name)
    return found


def _original(names: Iterable[str], in_shard: str) -> str:
    """Returns which of the files of a key is the image: its ending is the member's, but for case.

    A member without one, of an odd kind, has but one file.
    """
    ending = PurePosixPath(in_shard).suffix.lower()
    alike = [name for name in names if PurePosixPath(name).suffix.lower() == ending]
    candidates = alike or list(names)
    return candidates[0] if len(candidates) == 1 else in_shard


def _names_in_shards(index: Index, rows: pa.Table) -> list[str]:
    keys, offsets = rows["key"].to_pylist(), rows["offset"].to_numpy()
    shards = rows["shard"].to_pylist()
    names = list(keys)
    remote = [at for at, shard in enumerate(shards) if not files.is_local(index.shard_url(shard))]
    if len(remote) > MAX_REQUESTS:
        log.warning("scores: names in a store are requests: keys are given instead of file names")
        return names
    urls = {shard: index.shard_url(shard) for shard in set(shards)}

    def name_of(at: int) -> str:
        # Three blocks: a name that is long or no ASCII stands in two before the header itself.
        start = max(int(offsets[at]) - 3 * HEADER_BYTES, 0)
        headers = files.read_range(urls[shards[at]], start, int(offsets[at]) - start)
        key = keys[at].removeprefix(f"{shards[at]}/")
        return _plain_name(headers, key) or keys[at]

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        return list(pool.map(name_of, np.arange(len(keys)).tolist(), chunksize=64))


def _plain_name(headers: bytes, key: str) -> str:
    """Returns the name in a tar header, or the extended one before it, if it is the key's."""
    header = headers[-HEADER_BYTES:]
    name = header[:100].rstrip(b"\0")
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
    whole = b"/".join([prefix, name]) if prefix else name
    for one in (whole, _extended_name(headers)):
        text = one.decode(errors="replace").removeprefix("./")
        if text.startswith(f"{key}."):
            return one.decode(errors="replace")
    return ""


def _extended_name(headers: bytes) -> bytes:
    """Returns the name in a header of pax or GNU with one block of data, nothing without one."""
    if len(headers) < 3 * HEADER_BYTES:
        return b""
    kind, data = headers[156:157], headers[HEADER_BYTES : 2 * HEADER_BYTES]
    if kind == _LONG_NAME:
        return data.rstrip(b"\0")
    found = _PAX_PATH.search(data) if kind == _PAX else None
    return found.group(1) if found else b""
