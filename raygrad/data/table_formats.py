"""A table as other programs read it: CSV, Parquet or, of keys, plain text."""

import io
import sys
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc_csv

from raygrad.data.index import write_table
from raygrad.errors import ConfigError
from raygrad.storage import files

FORMATS = ("csv", "parquet", "txt")


def format_of(out: str) -> str:
    """Returns the format that an output's name asks for; standard output, ``-``, is CSV.

    Raises:
        ConfigError: The name ends otherwise.
    """
    ending = "csv" if out == "-" else out.rsplit(".", 1)[-1].lower()
    if ending not in FORMATS:
        raise ConfigError(
            f"an output must end in .csv, .parquet or .txt, or be -, got {out!r}. Name another."
        )
    return ending


def write_as(table: pa.Table, out: str) -> None:
    """Writes a table in the format of an output's name, whole or not at all.

    Args:
        table: Of plain columns; text holds the first of them, one value a line.
        out: A path, an s3:// URL, or ``-`` for standard output.
    """
    kind = format_of(out)
    if kind == "parquet":
        write_table(out, table)
        return
    content = _text(table) if kind == "txt" else _csv(table)
    if out == "-":
        sys.stdout.write(content.decode())
    else:
        files.write_bytes(out, content)


def _csv(table: pa.Table) -> bytes:
    buffer: Any = io.BytesIO()
    pc_csv.write_csv(table, buffer)
    return buffer.getvalue()


def _text(table: pa.Table) -> bytes:
    return "".join(f"{value}\n" for value in table.column(0).to_pylist()).encode()
