"""A table's hash is that of its values as lists, however its rows are cut, and in little memory."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from raygrad.data import columns
from raygrad.data.columns import columns_digest
from raygrad.data.index_rows import INDEX_SCHEMA, with_validation
from raygrad.selection.keyed_random import key_hashes
from raygrad.storage.manifest import digest

NAMES = ["key", "shard", "offset"]


def table(count):
    """Keys that JSON has to escape among them."""
    return pa.table(
        {
            "key": pa.array([f'n"{at}\\é\u2028' for at in range(count)], pa.string()),
            "shard": pa.array([f"s{at // 7}" for at in range(count)], pa.string()),
            "offset": np.arange(count) * 512,
        }
    )


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 50])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_the_hash_is_that_of_the_lists(monkeypatch, count, piece):
    """As it was before rows came in pieces: run folders that there are hold it."""
    monkeypatch.setattr(columns, "PIECE", piece)
    rows = table(count)
    cut = pa.concat_tables([rows.slice(at, 5) for at in range(0, max(count, 1), 5)])
    for names in (NAMES, NAMES[:1], []):
        assert columns_digest(cut, names) == digest([rows[name].to_pylist() for name in names])


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_what_is_held_out_does_not_depend_on_the_pieces(monkeypatch, piece):
    keys = [f"k{at}" for at in range(40)]
    split = ["test" if at % 5 == 0 else "train" for at in range(40)]
    rows = pa.table({name: keys if name == "key" else split for name in INDEX_SCHEMA.names})
    monkeypatch.setattr(columns, "PIECE", piece)
    found = with_validation(rows, 0.3, 5)["split"].to_pylist()
    hashes = key_hashes([f"5/{key}" for key in keys])
    expected = [
        "val" if name == "train" and number < int(0.3 * 2.0**64) else name
        for name, number in zip(split, hashes.tolist(), strict=True)
    ]
    assert found == expected
    assert "val" in found


def test_a_hash_holds_a_piece_and_not_the_table(monkeypatch):
    monkeypatch.setattr(columns, "PIECE", 1000)
    rows, peaks = table(50_000), []
    for some in (rows.slice(0, 5_000), rows):
        tracemalloc.start()
        columns_digest(some, NAMES)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], "ten times the rows"
