"""Subsets on disk: which examples were kept, with what they were drawn from."""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from raygrad.errors import ConfigError
from raygrad.runs import score_table
from raygrad.selection.out_of_core import draw_parts
from raygrad.storage import files

META = b"raygrad.subset"
"""What a subset file says of itself stands in its metadata under this name."""


class Budget:
    """How many rows a keep_fraction keeps: one at least. It remembers of how many.

    Args:
        keep_fraction: The share that is kept, in (0, 1].
    """

    def __init__(self, keep_fraction: float) -> None:
        self._keep_fraction, self.num_rows = keep_fraction, 0

    def __call__(self, num_rows: int) -> int:
        """Returns the rows that are kept of a table of so many."""
        self.num_rows = num_rows
        return max(1, round(self._keep_fraction * num_rows))


def draw_subset(
    scores_url: str,
    url: str,
    method: str,
    keep_fraction: float,
    seed: int,
    origin: dict[str, Any],
    draw_seed: int | None = None,
    row_files: Sequence[str] | None = None,
    **options: Any,
) -> int:
    """Draws a subset from a score table of any size and writes it, whole or not at all.

    Returns the number of the table's rows.

    Args:
        scores_url: The folder of the score table.
        url: The subset's file.
        method: A method of selection.
        keep_fraction: The share of the table's rows that is kept, at least one row.
        seed: The replicate, which seeds the draw unless `draw_seed` does.
        origin: What the subset comes from; kept in the file, with method, budget and seed.
        draw_seed: Seeds the draw, where it is of another scoring network than the run's own.
        row_files: What `score_table.row_files` says of the table, where it was just asked: a table
            of very many parts takes seconds to list.
        **options: What `draw_parts` takes: score_column, class_balanced, missing and the
            method's own.

    Raises:
        ConfigError: The table is not complete, or the budget is impossible.
        DataError: A score is missing, or negative where it must not be.
    """
    named = score_table.row_files(scores_url) if row_files is None else row_files
    parts = [files.filesystem(part) for part in named]
    facts = {**origin, "method": method, "keep_fraction": keep_fraction, "seed": seed}
    budget = Budget(keep_fraction)
    with tempfile.TemporaryDirectory(prefix="raygrad-subset-") as folder:
        drawn = Path(folder, "subset.parquet")
        draw_parts(
            method,
            [path for _, path in parts],
            str(drawn),
            budget,
            seed=seed if draw_seed is None else draw_seed,
            filesystem=parts[0][0],
            sink_filesystem=fs.LocalFileSystem(),
            metadata={META: json.dumps(facts).encode()},
            **options,
        )
        with drawn.open("rb") as source, files.open_output(url) as sink:
            shutil.copyfileobj(source, sink)
    return budget.num_rows


def read_subset(url: str) -> tuple[pa.Table, dict[str, Any]]:
    """Returns a subset and its origin.

    A file that raygrad did not write needs a column `key`, and has a `weight` of 1 where it has
    none. Its name is its origin, `METHOD-SEED.parquet` or `METHOD-KEEP_FRACTION-SEED.parquet`;
    any other name is the method's, of seed 0.

    Returns:
        At least the columns key and weight; and method, keep_fraction (None if nothing says it),
        seed, score_network and score_column (None if it was drawn elsewhere).

    Raises:
        ConfigError: There is no such file, or it is not a subset.
    """
    if not files.exists(url):
        raise ConfigError(f"subset must exist, got {url}. Draw it first: raygrad select.")
    table = _parquet(url)
    metadata = table.schema.metadata or {}
    if META in metadata:
        return table, json.loads(metadata[META])
    return _own_rows(table, url), _origin_of_name(url)


def _parquet(url: str) -> pa.Table:
    if not files.is_s3(url) and Path(url).is_dir():
        raise ConfigError(
            f"a subset must be a file, got the folder {url}. Name files: DIR/*.parquet."
        )
    content = files.read_bytes(url)
    try:
        return pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:  # cut and damaged files are OSErrors
        raise ConfigError(f"a subset must be a Parquet file, got {url}: {error}.") from error


def _own_rows(table: pa.Table, url: str) -> pa.Table:
    if "key" not in table.column_names:
        raise ConfigError(
            f"a subset must have a column key, got {', '.join(table.column_names)} in {url}. "
            "Name the examples as the index does."
        )
    keys = _as_type(table, "key", pa.string(), url)
    if not len(keys) or keys.null_count:
        raise ConfigError(f"a subset must have a key in every row, got none or a null in {url}.")
    if "weight" not in table.column_names:
        return pa.table({"key": keys, "weight": np.ones(len(keys))})
    weights = _as_type(table, "weight", pa.float64(), url)
    numbers = weights.to_numpy()  # nulls become NaN
    if not (np.isfinite(numbers) & (numbers >= 0)).all() or not numbers.any():
        wrong = numbers[~(np.isfinite(numbers) & (numbers >= 0))]
        raise ConfigError(
            "weights of a subset must be finite, at least 0, and one of them above 0, got "
            f"{wrong[0] if len(wrong) else 'zeros alone'} in {url}."
        )
    return pa.table({"key": keys, "weight": weights})


def _as_type(table: pa.Table, name: str, kind: pa.DataType, url: str) -> pa.ChunkedArray:
    try:
        return pc.cast(table[name], kind)
    except pa.ArrowException as error:
        raise ConfigError(
            f"column {name} of a subset must be of type {kind}, got {table[name].type} in {url}: "
            f"{error}."
        ) from error


def _origin_of_name(url: str) -> dict[str, Any]:
    stem = url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".parquet")
    # A fraction has a point or an exponent, so that `mine-1-3` is the seed 3 of `mine-1`.
    fraction_of = r"0?\.\d+|1\.0|\d(\.\d+)?e-\d+"
    found = re.fullmatch(rf"(?P<method>.+?)(-(?P<fraction>{fraction_of}))?-(?P<seed>\d+)", stem)
    method, fraction, seed = found.group("method", "fraction", "seed") if found else (stem, None, 0)
    return {
        "method": method,
        "keep_fraction": float(fraction) if fraction else None,
        "seed": int(seed),
        "score_network": None,
        "score_column": None,
    }
