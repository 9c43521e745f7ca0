"""Subsets by methods that read features: side tables joined to scores by key, and drawn from."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from raygrad.errors import ConfigError
from raygrad.runs import score_table
from raygrad.runs.subsets import META, Budget
from raygrad.selection.comparing import finite_rows
from raygrad.selection.drawing import draw_by_comparing, keyed_order
from raygrad.selection.keyed_random import key_hashes
from raygrad.selection.methods import SCORE
from raygrad.selection.named import FromFeatures, check_method, vectors_of
from raygrad.selection.out_of_core import SCHEMA, draw_parts
from raygrad.selection.quotas import ClassBalanced
from raygrad.selection.rows import Missing
from raygrad.storage import files

_NAMED = 5


@dataclass(frozen=True)
class Joined:
    """The rows of a score table with their vectors, which are mapped from local files."""

    keys: pa.ChunkedArray
    shards: pa.ChunkedArray
    labels: NDArray[np.int64]
    arrays: dict[str, NDArray[Any]]
    """What the method reads: vectors of the side table `[N, D]`, and the score `[N]`."""
    ends: tuple[int, ...]
    """Where each part ends."""


def draw_subset_by_features(
    scores_url: str,
    features_url: str,
    url: str,
    method: str,
    keep_fraction: float,
    seed: int,
    origin: dict[str, Any],
    draw_seed: int | None = None,
    *,
    score_column: str = SCORE,
    class_balanced: ClassBalanced = False,
    missing: Missing = "error",
    **options: Any,
) -> int:
    """Draws a subset by a method that reads features and writes it, whole or not at all.

    Returns the number of the table's rows.

    Vectors go through files in the system's temporary folder, 2 bytes a feature and 4 a class for
    each example; in memory are some numbers an example and what a block takes.

    Args:
        scores_url: The folder of the score table.
        features_url: The folder of the table whose side table `features/` is read.
        url: The subset's file.
        method: A method that reads `VECTORS`.
        keep_fraction: As in `draw_subset`, and so the rest.
        seed: The replicate.
        origin: What the subset comes from.
        draw_seed: Seeds the draw, where it is of another scoring network than the run's own.
        score_column: The column that d2 reads.
        class_balanced: Whether and how classes are drawn from one by one.
        missing: What becomes of what is not finite.
        **options: The method's own.

    Raises:
        ConfigError: A table is not complete, an example has no features, or the budget is
            impossible.
        DataError: A score or feature is not finite.
    """
    facts = {**origin, "method": method, "keep_fraction": keep_fraction, "seed": seed}
    budget = Budget(keep_fraction)
    metadata = {META: json.dumps(facts).encode()}
    chosen: Any = check_method(method, **options)
    column = score_column if SCORE in chosen.columns else None
    with tempfile.TemporaryDirectory(prefix="raygrad-features-") as folder:
        joined = join(scores_url, features_url, vectors_of(chosen), column, folder)
        drawn = Path(folder, "subset.parquet")
        draw = _draw_by_column if isinstance(chosen, FromFeatures) else _draw_compared
        draw(
            joined, drawn, metadata, method, chosen,
            budget,
            seed if draw_seed is None else draw_seed, class_balanced, missing, options,
        )  # fmt: skip
        with drawn.open("rb") as source, files.open_output(url) as sink:
            shutil.copyfileobj(source, sink)
    return budget.num_rows


def _draw_compared(
    joined: Joined,
    path: Path,
    metadata: dict[bytes, bytes],
    method: str,
    chosen: Any,
    budget: Callable[[int], int],
    seed: int,
    class_balanced: ClassBalanced,
    missing: Missing,
    _: Mapping[str, Any],
) -> None:
    """Writes what a method draws that compares examples."""
    at = draw_by_comparing(
        method, chosen, joined.arrays, joined.keys.to_pylist(), budget, seed, joined.labels,
        class_balanced, missing,
    )  # fmt: skip
    columns = {
        "key": joined.keys.take(pa.array(at)),
        "shard": joined.shards.take(pa.array(at)),
        "weight": np.ones(len(at)),
        "rank": np.arange(len(at)),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA.with_metadata(metadata)), path)


def _draw_by_column(
    joined: Joined,
    path: Path,
    metadata: dict[bytes, bytes],
    method: str,
    chosen: FromFeatures,
    budget: Callable[[int], int],
    seed: int,
    class_balanced: ClassBalanced,
    missing: Missing,
    options: Mapping[str, Any],
) -> None:
    """Writes what a method draws by a column that it makes of the features."""
    parts = _with_column(joined, chosen, seed, str(path.parent))
    draw_parts(
        method, parts, str(path), budget, seed=seed, class_balanced=class_balanced,
        missing=missing, filesystem=fs.LocalFileSystem(), metadata=metadata, **options,
    )  # fmt: skip


def _with_column(joined: Joined, method: FromFeatures, seed: int, folder: str) -> list[str]:
    """Writes the rows with the column that the method makes of the features; returns the parts."""
    features = joined.arrays["features"]
    hashes = key_hashes(joined.keys.to_pylist())
    order = keyed_order(hashes, seed, finite_rows({"features": features}, ("features",)))
    values = method.column(features, joined.labels, order, seed)
    rows = pa.table(
        {
            "key": joined.keys,
            "shard": joined.shards,
            "label": joined.labels,
            "key_hash": hashes,
            method.columns[0]: values,
        }
    )
    paths, start = [], 0
    for number, end in enumerate(joined.ends):
        if end > start:
            paths.append(str(Path(folder, f"rows-{number}.parquet")))
            pq.write_table(rows.slice(start, end - start), paths[-1])
        start = end
    return paths


def join(
    scores_url: str,
    features_url: str,
    vectors: Sequence[str],
    score_column: str | None,
    folder: str,
) -> Joined:
    """Reads a score table part by part with the vectors of its rows.

    Args:
        scores_url: The folder of the score table.
        features_url: The folder of the table whose side table is read; parts are of one name.
        vectors: The columns wanted of the side table.
        score_column: The score that is read too, if any.
        folder: A local folder for the vectors.

    Raises:
        ConfigError: A column is not there, or an example has no vectors.
    """
    tables: list[pa.Table] = []
    ends: list[int] = []
    shapes: dict[str, tuple[np.dtype[Any], int]] = {}
    with contextlib.ExitStack() as stack:
        sinks = {name: stack.enter_context(Path(folder, name).open("wb")) for name in vectors}
        own = ["key", "shard", "label", *([score_column] if score_column else [])]
        for part in score_table.table_parts(scores_url):
            shard = part.rsplit("/", 1)[-1].removeprefix("part-").removesuffix(".parquet")
            table = _read(part, own)
            tables.append(table)
            ends.append(table.num_rows + (ends[-1] if ends else 0))
            if not table.num_rows:
                continue
            found = read_vectors(features_url, shard, table["key"], vectors)
            for name, rows in found.items():
                shape = rows.dtype, rows.shape[1]
                if shape != shapes.setdefault(name, shape):
                    raise ConfigError(
                        f"{name} must be of one width and type, got {rows.shape[1]} {rows.dtype} "
                        f"after {shapes[name]}, of {shard} in {features_url}. Score again (--redo)."
                    )
                sinks[name].write(np.ascontiguousarray(rows).data)
    whole = pa.concat_tables(tables)
    arrays: dict[str, NDArray[Any]] = {
        name: np.memmap(Path(folder, name), dtype, "r", shape=(ends[-1], width))
        for name, (dtype, width) in shapes.items()
    }
    if score_column:
        arrays[SCORE] = pc.cast(whole[score_column], pa.float64()).to_numpy()
    labels = whole["label"].to_numpy().astype(np.int64)
    return Joined(whole["key"], whole["shard"], labels, arrays, tuple(ends))


def read_vectors(
    url: str, shard: str, keys: pa.ChunkedArray, names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Returns the vectors of some examples of a shard, each `[N, D]`, in the order of the keys.

    Args:
        url: The folder of the table whose side table is read.
        shard: The shard's name.
        keys: The examples' keys.
        names: Of `VECTORS`.

    Raises:
        ConfigError: The shard, a column or an example is not there.
    """
    where = score_table.features_url(url, shard)
    if not files.exists(where):
        raise ConfigError(
            f"a scored shard must have its features, got none of {shard} in {url}. "
            "Make them: --make-features."
        )
    side = _read(where, ["key", *names])
    at = pc.index_in(keys.cast(pa.string()), value_set=side["key"].combine_chunks())
    if at.null_count:
        lacking = keys.filter(pc.is_null(at)).slice(0, _NAMED).to_pylist()
        raise ConfigError(
            f"every scored image must have its features, got {at.null_count} of {shard} without: "
            f"{', '.join(lacking)}, in {where}. Score again with --features (--redo)."
        )
    places = at.to_numpy()
    in_order = len(places) == side.num_rows and np.array_equal(places, np.arange(len(places)))
    found = {}
    for name in names:
        column = side[name].combine_chunks()
        rows = column.flatten().to_numpy(zero_copy_only=False).reshape(side.num_rows, -1)
        found[name] = rows if in_order else rows[places]
    return found


def _remedy(column: str) -> str:
    if column in score_table.VECTORS:
        return "Make it for every shard: --make-features --redo."
    return "Score with --columns."


def _read(url: str, columns: Sequence[str]) -> pa.Table:
    with files.open_input(url) as stream:
        file = pq.ParquetFile(stream)
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent:
            raise ConfigError(
                f"a table must have the column {absent[0]}, got "
                f"{', '.join(file.schema_arrow.names)} in {url}. {_remedy(absent[0])}"
            )
        return file.read(columns=list(columns)).replace_schema_metadata(None)


def vectors_there(url: str) -> tuple[str, ...] | None:
    """Returns which of `VECTORS` the side table of a complete table has; None without one.

    Args:
        url: The folder of the table.
    """
    if not files.exists(files.join(url, score_table.MANIFEST)):
        return None
    side = files.list_files(files.join(url, "features"), ".parquet")
    if not side:
        return None
    with files.open_input(side[0]) as stream:
        names = pq.read_schema(stream).names
    return tuple(name for name in score_table.VECTORS if name in names)
