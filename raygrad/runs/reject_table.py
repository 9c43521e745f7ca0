"""The reject table of a stage: which examples it could not use, and why; written, counted, said."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from raygrad.data.index import read_table, write_table
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.reject_share import check_reject_share, common_reasons
from raygrad.errors import TooManyRejectsError
from raygrad.storage import files

log = logging.getLogger("raygrad")

REJECTS = "rejects.parquet"


def rejects_url(folder: str) -> str:
    """Returns where the reject table of a stage's folder is."""
    return files.join(folder, REJECTS)


def write_rejects(folder: str, rows: Sequence[Mapping[str, str]]) -> pa.Table:
    """Writes a stage's reject table, also an empty one, and returns it: shard, key, reason."""
    table = pa.Table.from_pylist(list(rows), REJECT_SCHEMA)
    write_table(rejects_url(folder), table)
    return table


def settle_rejects(
    stage: str, folder: str, rows: Sequence[Mapping[str, str]], num_used: int, max_share: float
) -> None:
    """Writes a stage's reject table, says how many there are, and refuses too many.

    Args:
        stage: The stage, for the line.
        folder: The stage's folder, a URL.
        rows: Shard, key and reason of the examples that could not be used.
        num_used: Examples that could.
        max_share: The share of rejects that is accepted, in [0, 1].

    Raises:
        TooManyRejectsError: There are more; the table is there all the same.
    """
    table = write_rejects(folder, rows)
    with rejects_kept(folder):
        check_reject_share(table, num_used, max_share)
    tell_rejects(stage, folder, num_used + table.num_rows)


def tell_rejects(stage: str, folder: str, num_seen: int) -> None:
    """Says how many examples a stage could not use, and why, where its table lists any."""
    url = rejects_url(folder)
    table = read_table(url) if files.exists(url) else None
    if table is not None and table.num_rows:
        reasons = common_reasons(table)
        log.warning(
            "%s: %d of %d images cannot be used: %s; listed in %s",
            stage, table.num_rows, num_seen, reasons, url,
        )  # fmt: skip


@contextlib.contextmanager
def rejects_kept(folder: str) -> Iterator[None]:
    """Writes the rejects that an error carries to a stage's table, whose place the error then says.

    Raises:
        TooManyRejectsError: The error that came.
    """
    try:
        yield
    except TooManyRejectsError as error:
        write_rejects(folder, error.rejects)
        text = f"{error} All are listed in {rejects_url(folder)}."
        raise TooManyRejectsError(text, error.rejects) from error
