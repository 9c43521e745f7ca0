"""Columns of a large table, a piece at a time: no more Python objects at once than a piece has."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

PIECE = 65_536
"""Rows that are Python objects at the same time."""

_DIGEST_BYTES = 16


def columns_digest(table: pa.Table, names: Sequence[str]) -> str:
    """Returns a hash of columns: what `digest` gives for the lists of their values, one a column.

    Args:
        table: Columns of strings and integers.
        names: The columns, in the order in which they count.
    """
    return digest_of_pieces(lambda name: pieces(table, [name]), names)


def digest_of_pieces(
    pieces_of: Callable[[str], Iterable[pa.RecordBatch]], names: Sequence[str]
) -> str:
    """Returns the hash of `columns_digest`, of columns that come in pieces.

    Args:
        pieces_of: Gives the pieces of a column; none of them is empty.
        names: The columns, in the order in which they count.
    """
    hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for at, name in enumerate(names):
        hasher.update(b"[[" if at == 0 else b", [")
        separator = ""
        for piece in pieces_of(name):
            text = json.dumps(piece.column(0).to_pylist())
            hasher.update((separator + text[1:-1]).encode())
            separator = ", "
        hasher.update(b"]")
    hasher.update(b"]" if names else b"[]")
    return hasher.hexdigest()


def pieces(table: pa.Table, names: Sequence[str]) -> list[pa.RecordBatch]:
    """Returns a table's rows in pieces of at most `PIECE` rows, none of them empty."""
    batches = table.select(list(names)).to_batches(max_chunksize=PIECE)
    return [batch for batch in batches if batch.num_rows]
