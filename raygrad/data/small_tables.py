"""Very many small tables that become one: a table of two rows takes kilobytes of Python and C++."""

from typing import final

import pyarrow as pa

_MOST = 256
"""So many tables are held as they came."""


@final
class SmallTables:
    """The rows of tables that come one by one, held in few objects however many they are."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._together: list[pa.Table] = []
        self._small: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Takes a table; all have the same columns."""
        self._small.append(table)
        self.num_rows += table.num_rows
        if len(self._small) >= _MOST:
            # Else a chunk for every table stays, and what its rows were cut from.
            self._together.append(pa.concat_tables(self._small).combine_chunks())
            self._small = []

    def take(self) -> pa.Table:
        """Returns the rows of all tables in the order in which they came, and holds none.

        There must be a table.
        """
        whole = pa.concat_tables([*self._together, *self._small]).combine_chunks()
        self.num_rows, self._together, self._small = 0, [], []
        return whole
