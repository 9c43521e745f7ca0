"""The tables of an audit: what they are called, and what stands in them."""

from collections.abc import Mapping

import pyarrow as pa

from raygrad.data.index import read_table, write_table
from raygrad.data.table_formats import write_as
from raygrad.storage import files
from raygrad.storage.manifest import read_json, write_json

TABLES = ("labels", "repeats", "outliers", "keep", "drop", "check")
"""labels: every example, the likeliest wrong first. repeats: members of groups. outliers: every
example, the farthest first. keep and drop: the training examples, keep as a subset. check, where it
was asked for: what training on each comes to."""

SUMMARY = "summary.json"
"""What the audit came to, and what decided it."""


WEAK = 0.8
"""A network that agrees with fewer labels is told of: with planted errors, of what one that agreed
with 51 to 74% of the labels flagged, a tenth to two fifths was wrong (benchmarks/audit.py)."""


def doubt(accuracy: float) -> str:
    """Returns what to think of suspects where the network that judged is weak; else nothing.

    Args:
        accuracy: The share of the labels that it agrees with, in 0..1.
    """
    if accuracy >= WEAK:
        return ""
    return (
        f"The network agrees with only {accuracy:.0%} of the labels: unless the others are wrong, "
        "most suspects are errors of its own, and how many labels are wrong is not known. Look "
        "before you leave any out, or let a better network judge (--checkpoint)"
    )


def table_url(folder: str, name: str) -> str:
    """Returns where a table is.

    Args:
        folder: The audit's folder.
        name: One of `TABLES`.
    """
    return files.join(folder, f"{name}.parquet")


def write_audit(folder: str, tables: Mapping[str, pa.Table], summary: Mapping[str, object]) -> None:
    """Writes all tables, as Parquet and as CSV, and last what they came to.

    Tables of an audit before that are not given now are removed.

    Args:
        folder: The audit's folder.
        tables: By name.
        summary: Facts and settings.
    """
    # Without its summary an audit is not whole: tables of two are never read as one.
    files.remove(files.join(folder, SUMMARY))
    for name in TABLES:
        csv = files.join(folder, f"{name}.csv")
        if name not in tables:
            files.remove(table_url(folder, name))
            files.remove(csv)
            continue
        write_table(table_url(folder, name), tables[name])
        write_as(tables[name].replace_schema_metadata(None), csv)
    write_json(files.join(folder, SUMMARY), dict(summary))


def read_audit(folder: str) -> tuple[dict[str, pa.Table], dict]:
    """Returns an audit's tables by name and its summary; nothing of an audit that is not whole.

    Args:
        folder: The audit's folder.
    """
    if not files.exists(files.join(folder, SUMMARY)):
        return {}, {}
    tables = {
        name: read_table(table_url(folder, name))
        for name in TABLES
        if files.exists(table_url(folder, name))
    }
    return tables, dict(read_json(files.join(folder, SUMMARY)))
