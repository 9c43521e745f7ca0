"""The index shard by shard: a shard's rows are those that a filter of all rows would find."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raygrad.data.index import Index, read_index, write_index
from raygrad.data.index_rows import INDEX_SCHEMA, SHARD_SCHEMA
from raygrad.data.shard_rows import ShardRows

COUNTS = {"b": 5, "a": 1, "z-9": 4, "z-10": 7, "empty": 0, "c": 3}


@pytest.fixture(params=[2, 3, 100])
def data(tmp_path, request):
    """An index whose shards are in no order of names and are cut by row groups."""
    shards = [name for name, count in COUNTS.items() for _ in range(count)]
    rows = {name: np.arange(len(shards)) for name in INDEX_SCHEMA.names}
    rows |= {"key": [f"k{at}" for at in range(len(shards))], "shard": shards}
    rows |= {"split": ["train"] * len(shards)}
    examples = pa.table(
        {name: pa.array(rows[name], INDEX_SCHEMA.field(name).type) for name in rows}
    )
    names = [*COUNTS]
    columns = [names, names, [*COUNTS.values()], [1] * len(names), names, names]
    index = Index(examples, pa.table(columns, schema=SHARD_SCHEMA), pa.table({}))
    write_index(str(tmp_path), index)
    pq.write_table(examples, tmp_path / "index.parquet", row_group_size=request.param)
    return str(tmp_path)


def test_a_shard_is_what_a_filter_of_the_whole_index_gives(data):
    whole, rows = read_index(data), ShardRows(data)
    for name in [*COUNTS, *reversed(COUNTS)]:
        found = rows.load(name)
        assert found.examples.equals(whole.examples.filter(pc.equal(whole.examples["shard"], name)))
        assert found.shards.equals(whole.shards.filter(pc.equal(whole.shards["name"], name)))
        assert found.examples.num_rows == COUNTS[name]


@pytest.mark.parametrize("name", ["", "aa", "zz", "b "])
def test_a_shard_that_is_not_there_has_no_rows(data, name):
    found = ShardRows(data).load(name)
    assert found.examples.num_rows == found.shards.num_rows == 0
