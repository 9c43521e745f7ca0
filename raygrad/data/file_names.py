"""The file names of examples, with their endings, as the headers of their shards have them."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from raygrad.data.index import Index
from raygrad.storage import files
from raygrad.storage.ranges import HEADER_BYTES

log = logging.getLogger("raygrad")

MAX_REQUESTS = 20_000
"""A name in a store is a request; of more examples than this their keys are given."""

_IN_FLIGHT = 16


def file_names(index: Index, rows: pa.Table) -> list[str]:
    """Returns the name of each example's image within its shard, in the order of the rows.

    Where a header does not hold the whole name (long names, compressed tars), it is the key.

    Args:
        index: The data set.
        rows: Rows of `index.examples`.
    """
    keys, offsets = rows["key"].to_pylist(), rows["offset"].to_numpy()
    shards = rows["shard"].to_pylist()
    names = list(keys)
    remote = [at for at, shard in enumerate(shards) if not files.is_local(index.shard_url(shard))]
    if len(remote) > MAX_REQUESTS:
        log.warning("scores: names in a store are requests: keys are given instead of file names")
        return names
    urls = {shard: index.shard_url(shard) for shard in set(shards)}

    def name_of(at: int) -> str:
        start = max(int(offsets[at]) - HEADER_BYTES, 0)
        header = files.read_range(urls[shards[at]], start, HEADER_BYTES)
        key = keys[at].removeprefix(f"{shards[at]}/")
        return _plain_name(header, key) or keys[at]

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        return list(pool.map(name_of, np.arange(len(keys)).tolist(), chunksize=64))


def _plain_name(header: bytes, key: str) -> str:
    """Returns the name in a tar header if it is whole and the key's, nothing otherwise."""
    name = header[:100].rstrip(b"\0")
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
    whole = (b"/".join([prefix, name]) if prefix else name).decode(errors="replace")
    return whole if whole.removeprefix("./").startswith(f"{key}.") else ""
