"""Labels and out-of-sample probabilities as cleanlab takes them: two arrays of the same order.

A network has seen the labels that it was trained on, so its own probabilities of its training
examples are no evidence against them; cleanlab's method asks for those of a network that did not
see the example, such as of cross-validation (Northcutt, Jiang and Chuang, Confident Learning, JAIR
70, 2021). raygrad does not make them up: the user's table has them.
"""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raygrad.data.export_formats import require_empty
from raygrad.data.index import Index
from raygrad.data.table_formats import write_as
from raygrad.errors import ConfigError
from raygrad.storage import files

PREFIX = "prob_"
"""What the columns of probabilities begin with; a class's name or number follows."""

_SUM_TOLERANCE = 1e-3


def write_cleanlab(index: Index, rows: pa.Table, out: str, table_url: str | None) -> int:
    """Writes ``labels.npy`` [N], ``pred_probs.npy`` [N, C] and ``examples.csv``; returns N.

    Args:
        index: Names the classes.
        rows: The examples, and their scores where there are some.
        out: A folder that is empty or not there.
        table_url: CSV or Parquet with the columns key and ``prob_<class>``, for every class.

    Raises:
        ConfigError: There is no table, it lacks an example or a class, or what it holds are no
            probabilities.
    """
    if table_url is None:
        raise ConfigError(
            "cleanlab must have out-of-sample probabilities, got none: a network's own of what it "
            f"was trained on will not do. Give --probabilities TABLE, with key and {PREFIX}CLASS."
        )
    require_empty(out)
    labels = rows["label"].to_numpy().astype(np.int64)
    num_classes = max(len(index.classes), int(labels.max(initial=-1)) + 1)
    names = [*index.classes, *map(str, range(len(index.classes), num_classes))]
    found = _probabilities(_read(table_url), rows["key"].to_pylist(), names, table_url)
    for name, array in (("labels", labels), ("pred_probs", found)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.write_bytes(files.join(out, f"{name}.npy"), buffer.getvalue())
    shown = [n for n in rows.column_names if n not in ("key_hash", "offset", "size")]
    write_as(rows.select(shown), files.join(out, "examples.csv"))
    return len(labels)


def _read(url: str) -> pa.Table:
    try:
        with files.open_input(url) as stream:
            if url.lower().endswith(".csv"):
                types = pc_csv.ConvertOptions(column_types={"key": pa.string()})
                return pc_csv.read_csv(stream, convert_options=types)
            return pq.read_table(stream)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        reason = (str(error).splitlines() or ["nothing"])[0].rstrip(".")
        raise ConfigError(
            f"probabilities must be a CSV or Parquet file, got {reason}, at {url}. Check the path."
        ) from error


def _probabilities(
    table: pa.Table, keys: Sequence[str], names: Sequence[str], url: str
) -> NDArray[np.float32]:
    """Returns the probabilities of examples, ``[N, C]``, in their order."""
    columns = [_column(table, name, number, url) for number, name in enumerate(names)]
    known = table["key"].cast(pa.string()).combine_chunks()
    if len(pc.unique(known)) < len(known):
        raise ConfigError(f"a key must stand once in a table, got some twice in {url}. Remove one.")
    at = pc.index_in(pa.array(keys, pa.string()), value_set=known)
    if at.null_count:
        lacking = keys[pc.is_null(at).to_pylist().index(True)]
        raise ConfigError(
            f"every example must have probabilities, got none of {at.null_count:,} of {len(keys):,}"
            f", such as {lacking!r}, in {url}. Add them, or export a subset that has them."
        )
    found = np.stack([c.take(at).cast(pa.float64()).to_numpy() for c in columns], axis=1)
    sums = found.sum(axis=1)
    wrong = ~((found >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ConfigError(
            f"probabilities of an example must be at least 0 and sum to 1, got a sum of "
            f"{sums[first]:g} for {keys[first]!r}, in {url}. Give probabilities, not logits."
        )
    return found.astype(np.float32)


def _column(table: pa.Table, name: str, number: int, url: str) -> pa.ChunkedArray:
    """Returns the column of a class, by its name or by its number."""
    for column in (f"{PREFIX}{name}", f"{PREFIX}{number}"):
        if column in table.column_names and "key" in table.column_names:
            return table[column]
    raise ConfigError(
        f"probabilities must have the columns key and {PREFIX}{name}, got "
        f"{table.column_names[:8]} in {url}. Name them so, one a class."
    )
