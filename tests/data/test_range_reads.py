"""Range reads give exactly the examples asked for, and move little else."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrad.data import storage
from raygrad.data.index import build_index
from raygrad.data.range_reads import LOCAL, S3, ReadCost, plan_ranges, read_rows
from raygrad.errors import DataError
from tests.data.making import example, put


def cost(gap, longest=10**9):
    return ReadCost(request_s=1.0, bytes_per_s=gap, num_parallel=1, max_request_bytes=longest)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 50)), max_size=30),
    st.integers(0, 40),
    st.integers(1, 200),
)
def test_a_plan_covers_every_example_once_and_joins_only_near_ones(places, gap, longest):
    offsets, sizes = (np.array([p[at] for p in places], np.int64) for at in (0, 1))
    ranges = plan_ranges(offsets, sizes, cost(gap, longest))
    rows = [row for one in ranges for row in one.rows.tolist()]
    assert sorted(rows) == list(range(len(places)))
    for one in ranges:
        assert one.begin == offsets[one.rows].min()
        assert one.end == (offsets + sizes)[one.rows].max()
        assert len(one.rows) == 1 or one.end - one.begin <= longest
        covered = np.zeros(600, bool)
        for row in one.rows:
            covered[offsets[row] : offsets[row] + sizes[row]] = True
        holes = "".join("x" if c else "." for c in covered[one.begin : one.end]).split("x")
        assert max(map(len, holes)) <= gap


@pytest.fixture
def index(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"k{n:04d}": rng.bytes(int(rng.integers(100, 30_000))) for n in range(600)}
    keys = list(images)
    urls = [
        put(
            tmp_path,
            f"s{s}.tar",
            [m for key in keys[s::3] for m in example(key, 0, "jpg", images[key])],
        )
        for s in range(3)
    ]
    return build_index(urls, [], val_fraction=0.1), images


@pytest.mark.parametrize("costs", [None, cost(0), cost(10**9), cost(5000, 40_000), S3])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_every_row_comes_once_with_its_own_bytes(index, costs, share):
    index, images = index
    chosen = np.random.default_rng(1).permutation(600)[: int(600 * share)]
    rows = index.examples.take(pa.array(chosen))
    found = [(row["key"], data) for row, data in read_rows(index, rows, costs)]
    assert sorted(found) == sorted((key, images[key]) for key in rows["key"].to_pylist())


@pytest.mark.parametrize("costs", [LOCAL, S3])
@pytest.mark.parametrize("size", [300, 12_000, 110_000])
def test_one_percent_of_the_examples_moves_at_most_two_percent_of_the_bytes(costs, size):
    """For images as small as MNIST's and as large as ImageNet's, in tars of 2,000."""
    block = -(-size // 512) * 512 + 3 * 512
    moved = total = 0
    for shard in range(20):
        at = np.random.default_rng(shard).permutation(2000)[:20]
        ranges = plan_ranges(at * block + 512, np.full(20, size), costs)
        moved += sum(one.end - one.begin for one in ranges)
        total += 2000 * block
    assert moved <= 0.02 * total


def test_all_of_a_shard_is_read_in_long_requests(index, monkeypatch):
    index, _ = index
    requests = []
    open_input = storage.open_input

    class Counting:
        def __init__(self, url):
            self.stream = open_input(url)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        def size(self):
            return self.stream.size()

        def read_at(self, size, offset):
            requests.append(size)
            return self.stream.read_at(size, offset)

    monkeypatch.setattr(storage, "open_input", Counting)
    assert sum(1 for _ in read_rows(index, index.examples, S3)) == 600
    assert len(requests) == 3  # one for each shard


def test_a_shard_that_changed_since_it_was_indexed_is_refused(index):
    index, _ = index
    with open(index.shards["url"][1].as_py(), "ab") as stream:
        stream.write(bytes(512))
    with pytest.raises(DataError, match="as it was indexed"):
        list(read_rows(index, index.examples))
