"""Subsets on disk: which examples were kept, with what they were drawn from."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.data import storage
from raygrad.errors import ConfigError

_META = b"raygrad.subset"


def write_subset(url: str, subset: pa.Table, origin: dict[str, Any]) -> None:
    """Writes a subset as Parquet, whole or not at all.

    Args:
        url: The file.
        subset: Columns key, shard, weight and rank; one row a kept example, in draw order.
        origin: Method, budget, seed and the digest of the score table; kept in the file.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(subset.replace_schema_metadata({_META: json.dumps(origin)}), sink)
    storage.write_bytes(url, sink.getvalue().to_pybytes())


def read_subset(url: str) -> tuple[pa.Table, dict[str, Any]]:
    """Returns a subset and its origin.

    Raises:
        ConfigError: There is no such file, or it is not a subset.
    """
    if not storage.exists(url):
        raise ConfigError(f"subset must exist, got {url}. Draw it first: raygrad select.")
    table = pq.read_table(pa.BufferReader(storage.read_bytes(url)))
    metadata = table.schema.metadata or {}
    if _META not in metadata:
        raise ConfigError(f"subset must be written by raygrad, got {url}. Draw it again.")
    return table, json.loads(metadata[_META])
