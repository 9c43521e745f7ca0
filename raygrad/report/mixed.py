"""Means that would be over several recipes or data sets: they are left out, and it is said."""

from collections import defaultdict

import pyarrow as pa

_SERIES = ("score_network", "score_column")
_MOST_NAMED = 3


def without_mixed(results: pa.Table) -> tuple[pa.Table, list[str]]:
    """Returns the rows of a sweep whose means are of one recipe and one state of the data.

    A run folder whose data grew, or whose recipe changed, can hold retrainings of both; which of
    them are meant the table does not say.

    Args:
        results: ``sweep/results.parquet``; rows without ``config_digest`` are taken as they are.

    Returns:
        The table without the rows of mixed means, and a sentence that names them, if there are any.
    """
    if not {"config_digest", "method", "keep_fraction"} <= set(results.column_names):
        return results, []
    digests: dict[tuple, set[str]] = defaultdict(set)
    cells = _cells(results)
    # A trial that came to nothing counts in no mean.
    names = [name for name in ("config_digest", "test_accuracy") if name in results.column_names]
    for cell, row in zip(cells, results.select(names).to_pylist(), strict=True):
        if row["config_digest"] is not None and row.get("test_accuracy", 0.0) is not None:
            digests[cell].add(str(row["config_digest"]))
    mixed = sorted(
        (cell for cell, found in digests.items() if len(found) > 1),
        key=lambda cell: tuple(map(str, cell)),
    )
    if not mixed:
        return results, []
    named = [f"{method} at {fraction:g} of {network}" for network, _, method, fraction, *_ in mixed]
    more = f" and {len(mixed) - _MOST_NAMED} more" if len(mixed) > _MOST_NAMED else ""
    note = (
        f"A mean must be over one recipe and one state of the data, got several for "
        f"{', '.join(named[:_MOST_NAMED])}{more}, which are left out. "
        "Sweep again, which sets aside what is of others: raygrad sweep."
    )
    kept = pa.array([cell not in mixed for cell in cells], pa.bool_())
    return results.filter(kept), [note]


def _cells(results: pa.Table) -> list[tuple]:
    """Returns what names the mean that each row counts in."""
    cells = []
    for row in results.to_pylist():
        series = tuple(row.get(name) for name in _SERIES)
        # Scoring networks of another run have a table each, NAME-DIGEST, and share a mean.
        run = (row.get("score_run") or "").rpartition("-")[0]
        # A random subset owes nothing to scores.
        by = (None, None, "") if row["method"] == "random" else (*series, run)
        cell = (row.get("network", "network"), row.get("protocol"), row["method"])
        cells.append((*cell, row["keep_fraction"], *by))
    return cells
