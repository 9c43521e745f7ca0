"""Subsets on disk: which examples were kept, with what they were drawn from."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raygrad.data import score_table, storage
from raygrad.errors import ConfigError
from raygrad.selection.out_of_core import draw_parts

_META = b"raygrad.subset"


def draw_subset(
    scores_url: str,
    url: str,
    method: str,
    keep_fraction: float,
    seed: int,
    origin: dict[str, Any],
    **options: Any,
) -> None:
    """Draws a subset from a score table of any size and writes it, whole or not at all.

    Args:
        scores_url: The folder of the score table.
        url: The subset's file.
        method: A method of selection.
        keep_fraction: The share of the table's rows that is kept, at least one row.
        seed: Seeds the draw.
        origin: What the subset comes from; kept in the file, with method, budget and seed.
        **options: What `draw_parts` takes: score_column, class_balanced, missing and the
            method's own.

    Raises:
        ConfigError: The table is not complete, or the budget is impossible.
        DataError: A score is missing, or negative where it must not be.
    """
    parts = [storage.filesystem(part) for part in score_table.table_parts(scores_url)]
    facts = {**origin, "method": method, "keep_fraction": keep_fraction, "seed": seed}
    with tempfile.TemporaryDirectory(prefix="raygrad-subset-") as folder:
        drawn = Path(folder, "subset.parquet")
        draw_parts(
            method,
            [path for _, path in parts],
            str(drawn),
            lambda num_rows: max(1, round(keep_fraction * num_rows)),
            seed=seed,
            filesystem=parts[0][0],
            sink_filesystem=fs.LocalFileSystem(),
            metadata={_META: json.dumps(facts).encode()},
            **options,
        )
        with drawn.open("rb") as source, storage.open_output(url) as sink:
            shutil.copyfileobj(source, sink)


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
