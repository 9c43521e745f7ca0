"""Which bytes of a shard to ask for: neighbouring examples joined, by the price of a request."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raygrad.storage import files

HEADER_BYTES = 512
"""The tar header just before an image; it is read too, to check the image against the index."""

_FOOTPRINT_BYTES = 3 * HEADER_BYTES
"""What an example takes in a tar beside its image: two headers and a block for the label."""

MAX_RANGE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class StorageCost:
    """What reading costs, to choose between few large requests and many small ones."""

    request_s: float
    """Seconds that one more request takes, others being in flight."""
    bytes_per_s: float
    """Bytes a second of long reads, others being in flight."""
    most_through: float = math.inf
    """Reading through moves at most so many times what is asked for: a network is shared."""


LOCAL_COST = StorageCost(request_s=20e-6, bytes_per_s=2e9)
S3_COST = StorageCost(request_s=2e-3, bytes_per_s=320e6, most_through=16.0)
"""Of S3: 30 ms to the first byte with 16 requests in flight, and 80 MB/s of each of 4 long ones."""
SERVER_COST = StorageCost(request_s=2e-3, bytes_per_s=80e6)
"""Of every other server, which may be far: one long read is taken to fill the line."""


@dataclass(frozen=True)
class RangePlan:
    """Requests that together hold the examples asked for, in the order of the shard."""

    starts: NDArray[np.int64]
    """First byte of each request."""
    stops: NDArray[np.int64]
    """Byte after the last of each request."""
    first: NDArray[np.int64]
    """The first example of each request, as a position in the sorted offsets; R + 1 of them."""

    @property
    def num_bytes(self) -> int:
        """Bytes that the plan moves."""
        return int((self.stops - self.starts).sum())


def cost_of(url: str) -> StorageCost:
    """Returns what reading from a URL is taken to cost."""
    if files.is_local(url):
        return LOCAL_COST
    return S3_COST if files.is_s3(url) else SERVER_COST


def plan_ranges(
    offsets: NDArray[np.int64], sizes: NDArray[np.int64], cost: StorageCost
) -> RangePlan:
    """Plans the requests for some examples of one shard.

    A gap is read through where that is cheaper than another request. As long as the examples are
    few, such gaps together stay below what the examples themselves take in the tar, smallest gaps
    first: a subset of 1% moves about 2% of the bytes at most. Where reading from the first to the
    last example is quicker than so many requests, and moves no more than storage is to move for
    them, that is the plan. No request is much longer than `MAX_RANGE_BYTES`, which bounds memory; a
    larger image is one request.

    Args:
        offsets: Where the images begin, int64 `[N]`, in ascending order, each after a tar header.
        sizes: Their sizes in bytes, int64 `[N]`.
        cost: What storage costs.
    """
    if len(offsets) == 0:
        empty = np.empty(0, np.int64)
        return RangePlan(empty, empty, np.zeros(1, np.int64))
    begins, ends = np.maximum(offsets - HEADER_BYTES, 0), offsets + sizes
    gaps = np.maximum(begins[1:] - ends[:-1], 0)
    asked_bytes = int(sizes.sum()) + _FOOTPRINT_BYTES * len(sizes)
    joined = _affordable(gaps, asked_bytes)
    joined &= gaps <= cost.request_s * cost.bytes_per_s
    by_ranges_s = (1 + int((~joined).sum())) * cost.request_s
    by_ranges_s += (int((ends - begins).sum()) + int(gaps[joined].sum())) / cost.bytes_per_s
    through_bytes = int(ends[-1] - begins[0])
    through_s = cost.request_s + through_bytes / cost.bytes_per_s
    if through_s <= by_ranges_s and through_bytes <= cost.most_through * asked_bytes:
        joined = np.ones_like(joined)
    first = _starts_of_ranges(begins, ends, joined)
    last = np.append(first[1:], len(offsets)) - 1
    return RangePlan(begins[first], ends[last], np.append(first, len(offsets)))


def _affordable(gaps: NDArray[np.int64], budget: int) -> NDArray[np.bool_]:
    """Tells which gaps, smallest first, fit into `budget` bytes together."""
    order = np.argsort(gaps, kind="stable")
    fits = np.zeros(len(gaps), bool)
    fits[order[np.cumsum(gaps[order]) <= budget]] = True
    return fits


def _starts_of_ranges(
    begins: NDArray[np.int64], ends: NDArray[np.int64], joined: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Returns the first example of each request; long runs are cut at `MAX_RANGE_BYTES`."""
    runs = np.append(0, np.flatnonzero(~joined) + 1)
    cuts = []
    for start, stop in zip(runs.tolist(), [*runs[1:].tolist(), len(begins)], strict=True):
        at = start
        while at < stop:
            cuts.append(at)
            limit = begins[at] + MAX_RANGE_BYTES
            at = max(at + 1, start + int(np.searchsorted(ends[start:stop], limit, side="right")))
    return np.array(cuts, np.int64)
