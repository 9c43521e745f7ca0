"""Reading examples by their places in the index: whole shards or a few examples, by cost."""

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raygrad.data.index import Index
from raygrad.errors import DataError
from raygrad.selection.keyed_random import key_hashes
from raygrad.storage import files
from raygrad.storage.ranges import HEADER_BYTES, RangePlan, cost_of, plan_ranges

_IN_FLIGHT = 16
_PREFETCH = 4
_LONG_NAME = 90
_LITTLE_BYTES = 2**22
"""Where a shard's part is no more, on average, a server's answer takes longer to come than to read:
30 ms at 80 MB/s are 2.4 MB."""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example as its shard holds it."""

    key: str
    """Its key."""
    shard: str
    """The name of its shard."""
    key_hash: int
    """The hash of its key, which random transforms are drawn from."""
    label: int
    """Its class."""
    image: bytes
    """The encoded image."""


def read_rows(index: Index, rows: pa.Table) -> Iterator[EncodedExample]:
    """Reads the examples of some rows of the index, each exactly once.

    Shards come in the order in which the rows first name them, and examples in the order of the
    shard. Whether a shard is read through or by ranges is chosen by cost. Where a server is
    asked for little of each shard, several are asked at once: a batch in a random order is an image
    or two of each of many shards, and each answer takes its time to come.

    Args:
        index: The data set.
        rows: Rows of `index.examples`, in any order.

    Raises:
        DataError: A shard is no longer what was indexed.
        IncompleteError: Storage does not answer.
        FileNotFoundError: A shard is gone.
    """
    sizes = dict(
        zip(index.shards["name"].to_pylist(), index.shards["num_bytes"].to_pylist(), strict=True)
    )
    codes = rows["shard"].combine_chunks().dictionary_encode()
    order = np.lexsort([rows["offset"].to_numpy(), codes.indices.to_numpy()])
    rows = rows.select(["key", "key_hash", "offset", "size", "label"]).take(pa.array(order))
    bounds = np.append(0, np.bincount(codes.indices.to_numpy()).cumsum())
    names = codes.dictionary.to_pylist()

    def read(at: int, in_flight: int = _IN_FLIGHT) -> Iterator[EncodedExample]:
        part = rows.slice(bounds[at], bounds[at + 1] - bounds[at])
        return _read_shard(index.shard_url(names[at]), names[at], sizes[names[at]], part, in_flight)

    num_bytes = int(rows["size"].to_numpy().sum())
    is_little = len(names) > 1 and num_bytes <= _LITTLE_BYTES * len(names)
    if not is_little or files.is_local(index.shard_url(names[0])):
        for at in range(len(names)):
            yield from read(at)
        return
    each = max(1, _IN_FLIGHT // len(names))
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        shards = range(len(names))
        for found in ordered_map(pool, lambda at: list(read(at, each)), shards, _IN_FLIGHT):
            yield from found


def rows_of_keys(index: Index, keys: Sequence[str]) -> pa.Table:
    """Returns the index's rows of these keys, in the order of the keys.

    Raises:
        DataError: A key is not in the index.
    """
    known = index.examples["key_hash"].to_numpy()
    order = np.argsort(known, kind="stable")
    wanted = key_hashes(keys)
    at = np.searchsorted(known, wanted, sorter=order)
    positions = order[np.minimum(at, len(order) - 1)] if len(order) else np.empty(0, np.int64)
    rows = index.examples.take(pa.array(positions, pa.int64()))
    found = rows["key"].to_pylist()
    for number, key in enumerate(keys):
        if number >= len(found) or found[number] != key:
            raise DataError(
                f"keys must be in the index, got {key!r}. Name the run that the subset is from."
            )
    return rows


def _read_shard(
    url: str, name: str, num_bytes: int, part: pa.Table, in_flight: int
) -> Iterator[EncodedExample]:
    plan = plan_ranges(part["offset"].to_numpy(), part["size"].to_numpy(), cost_of(url))
    read = _reader(url, name, num_bytes)
    offsets, sizes, keys, hashes, labels = (
        part[column].to_pylist() for column in ("offset", "size", "key", "key_hash", "label")
    )
    first, led = plan.first.tolist(), f"{name}/"
    for number, (start, block) in enumerate(_fetch(url, plan, read, in_flight)):
        for at in range(first[number], first[number + 1]):
            begin = offsets[at] - start
            header = block[max(begin - HEADER_BYTES, 0) : begin]
            problem = _header_problem(header, keys[at], sizes[at])
            if problem and keys[at].startswith(led):
                # Of a key that another shard has too, the tar holds what comes after its own name.
                problem = _header_problem(header, keys[at].removeprefix(led), sizes[at])
            if problem:
                raise _not_as_indexed(f"{keys[at]!r}: {problem}", name)
            image = block[begin : begin + sizes[at]]
            yield EncodedExample(keys[at], name, hashes[at], labels[at], image)


def _reader(url: str, name: str, num_bytes: int) -> Callable[[int, int], bytes]:
    """Returns what reads so many bytes at an offset of a shard of the size that was indexed.

    The size is looked at first, and on S3 at every answer, which tells it.
    """

    def check(found: int) -> None:
        if found != num_bytes:
            raise _not_as_indexed(f"{found} bytes instead of {num_bytes}", name)

    if not files.is_s3(url):
        check(files.file_size(url))
        return functools.partial(files.read_range, url)
    from raygrad.storage.s3_versions import OneVersion  # boto3 comes with it

    shard = OneVersion(url)

    def read(offset: int, size: int) -> bytes:
        data, found = shard.read(offset, size)
        check(found)
        return data

    return read


def _fetch(
    url: str, plan: RangePlan, read: Callable[[int, int], bytes], in_flight: int
) -> Iterator[tuple[int, bytes]]:
    """Yields start and bytes of each request, in order; of a server several are in flight."""
    ranges = list(zip(plan.starts.tolist(), plan.stops.tolist(), strict=True))
    if files.is_local(url):
        with open(url, "rb", buffering=0) as stream:
            for start, stop in ranges:
                block = os.pread(stream.fileno(), stop - start, start)
                if len(block) < stop - start:
                    block = read(start, stop - start)
                yield start, block
        return

    def fetch(one: tuple[int, int]) -> tuple[int, bytes]:
        return one[0], read(one[0], one[1] - one[0])

    short = all(stop - start < 2**20 for start, stop in ranges)
    in_flight = min(in_flight, len(ranges), _IN_FLIGHT if short else _PREFETCH)
    if in_flight == 1:
        yield from map(fetch, ranges)
        return
    with ThreadPoolExecutor(in_flight) as pool:
        yield from ordered_map(pool, fetch, ranges, in_flight)


def ordered_map(
    pool: ThreadPoolExecutor, call: Callable, items: Iterable, num_ahead: int
) -> Iterator:
    """Maps over items in threads, in order, never more than `num_ahead` of them begun."""
    pending: collections.deque = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(call, item))
            if len(pending) >= num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for one in pending:
            one.cancel()


def _header_problem(header: bytes, key: str, size: int) -> str:
    """Returns why these 512 bytes are not the tar header of this image, or nothing.

    The name is compared where a plain header holds it whole: short and ASCII.
    """
    if len(header) < HEADER_BYTES:
        return "no tar header before the image"
    field = header[124:136]
    if field[0] & 0x80:
        found = int.from_bytes(field[1:], "big")
    else:
        digits = field.rstrip(b" \0").lstrip()
        if not digits.isdigit():
            return "no tar header before the image"
        found = int(digits, 8)
    if found != size:
        return f"the image has {found} bytes instead of {size}"
    if len(key) < _LONG_NAME and key.isascii():
        name = header[:100].rstrip(b"\0")
        prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
        whole = b"/".join([prefix, name]) if prefix else name
        if not whole.startswith(key.encode() + b"."):
            return f"another member is in its place, {whole[:80]!r}"
    return ""


def _not_as_indexed(what: str, shard: str) -> DataError:
    return DataError(
        f"a shard must be as it was when it was indexed, got {what}, in {shard}. "
        "Build the index again."
    )
