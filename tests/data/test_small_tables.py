"""Rows of many small tables: all of them, in order, and in few objects."""

import pyarrow as pa
import pytest

from raygrad.data.small_tables import SmallTables


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_rows_are_those_of_all_tables_in_their_order_and_in_one_chunk(count):
    schema = pa.schema({"at": pa.int64(), "name": pa.string()})
    columns = [[[at] * (at % 3), [f"n{at}"] * (at % 3)] for at in range(count)]
    tables = [pa.table(one, schema=schema) for one in columns]
    held = SmallTables()
    for table in tables:
        held.add(table)
    assert held.num_rows == sum(table.num_rows for table in tables)
    whole = held.take()
    assert whole.equals(pa.concat_tables(tables))
    assert whole["at"].num_chunks <= 1
    assert held.num_rows == 0


def test_what_comes_after_is_held_anew():
    held = SmallTables()
    held.add(pa.table({"at": [1]}))
    held.take()
    held.add(pa.table({"at": [2, 3]}))
    assert held.take()["at"].to_pylist() == [2, 3]
