"""Reading examples by their place in the shards: near ones in one request, the rest left alone."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data import storage
from raygrad.data.index import Index
from raygrad.errors import DataError


@dataclass(frozen=True)
class ReadCost:
    """What a request costs against a byte; decides which neighbours are read together."""

    request_s: float
    """Time to the first byte of a request, over the number of requests that run at a time."""
    bytes_per_s: float
    """Rate of a running read."""
    num_parallel: int
    """Requests that run at a time."""
    max_request_bytes: int = 8 * 2**20
    """A request is not made longer than this, to bound memory."""

    @property
    def max_gap_bytes(self) -> int:
        """Bytes that cost as much to read over as a request costs to begin."""
        return int(self.request_s * self.bytes_per_s)


LOCAL = ReadCost(request_s=5e-6, bytes_per_s=2e9, num_parallel=1)
S3 = ReadCost(request_s=0.02 / 16, bytes_per_s=25e6, num_parallel=16)
"""20 ms to the first byte and 25 MB/s a connection: gaps of up to 31 kB are read over, so that
1% of even the smallest images is read without moving much more than 1% of the bytes."""


@dataclass(frozen=True)
class ByteRange:
    """One request and the examples that lie in it."""

    begin: int
    """First byte."""
    end: int
    """One past the last byte."""
    rows: NDArray[np.int64]
    """Positions, among the rows asked for, of the examples that lie in it."""


def plan_ranges(
    offsets: NDArray[np.int64], sizes: NDArray[np.int64], cost: ReadCost
) -> list[ByteRange]:
    """Joins the places of examples in one shard into requests, in the order of their offsets.

    Neighbours share a request where reading over the gap between them costs less than a request
    of their own. A dense subset so becomes one long read of the shard, a sparse one reads little
    but itself: the choice between streaming and ranges is this one comparison, gap by gap.

    Args:
        offsets: `[N]`, first byte of each.
        sizes: `[N]`, in bytes.
        cost: What a request costs against a byte.
    """
    order = np.argsort(offsets, kind="stable")
    ranges: list[ByteRange] = []
    begin, end = 0, -1
    rows: list[int] = []
    for at in order.tolist():
        first, last = int(offsets[at]), int(offsets[at] + sizes[at])
        near = rows and first - end <= cost.max_gap_bytes
        if near and max(end, last) - begin <= cost.max_request_bytes:
            end = max(end, last)
            rows.append(at)
            continue
        if rows:
            ranges.append(ByteRange(begin, end, np.array(rows)))
        begin, end, rows = first, last, [at]
    if rows:
        ranges.append(ByteRange(begin, end, np.array(rows)))
    return ranges


def read_rows(
    index: Index, rows: pa.Table, cost: ReadCost | None = None
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yields rows of the index with the bytes of their images.

    Args:
        index: The data set.
        rows: Rows of its examples, in any order and of any number.
        cost: What a request costs; by default what is usual for local disk or S3.

    Yields:
        Every row once: shards in the order of their first row, within a shard by offset.

    Raises:
        DataError: A shard is no longer as large as it was when it was indexed.
    """
    positions: dict[str, list[int]] = {}
    for at, name in enumerate(rows["shard"].to_pylist()):
        positions.setdefault(name, []).append(at)
    for name, of_shard in positions.items():
        url = index.shard_url(name)
        usual = S3 if storage.is_s3(url) else LOCAL
        with storage.open_input(url) as stream:
            if stream.size() != index.shard_bytes(name):
                raise DataError(
                    f"a shard must be as it was indexed, {index.shard_bytes(name)} bytes, "
                    f"got {stream.size()} in {url}. Index again."
                )
            yield from _read_shard(stream, rows.take(pa.array(of_shard)), cost or usual)


def _read_shard(
    stream: Any, rows: pa.Table, cost: ReadCost
) -> Iterator[tuple[dict[str, Any], bytes]]:
    values = rows.to_pylist()
    ranges = plan_ranges(rows["offset"].to_numpy(), rows["size"].to_numpy(), cost)
    for one, data in zip(ranges, _fetch(stream, ranges, cost.num_parallel), strict=True):
        for at in one.rows.tolist():
            begin = values[at]["offset"] - one.begin
            yield values[at], data[begin : begin + values[at]["size"]]


def _fetch(stream: Any, ranges: Sequence[ByteRange], num_parallel: int) -> Iterator[bytes]:
    """Yields the bytes of each range in order, with some requests ahead of the consumer."""

    def fetch(one: ByteRange) -> bytes:
        return bytes(stream.read_at(one.end - one.begin, one.begin))

    if num_parallel == 1:
        yield from map(fetch, ranges)
        return
    with ThreadPoolExecutor(num_parallel) as pool:
        pending: deque[Future[bytes]] = deque()
        for one in ranges:
            pending.append(pool.submit(fetch, one))
            if len(pending) >= num_parallel:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
