"""Tables of many small files come in turn, whoever reads them."""

import itertools

import pyarrow as pa
import pytest

from raygrad.data import small_files
from raygrad.data.small_files import tables_of


def read(url):
    """Returns a table of as many rows as the name says, with the name in each."""
    count = int(url.rpartition("-")[2])
    return pa.table(
        {"at": pa.array(range(count), pa.int64()), "name": pa.array([url] * count, pa.string())}
    )


def tasks(asked):
    """Returns a map that notes what each task is given."""

    def mapped(function, items):
        for item in items:
            asked.append(item)
            yield function(item)

    return mapped


def urls_of(counts):
    return [f"f{at}-{count}" for at, count in enumerate(counts)]


@pytest.mark.parametrize(
    ("counts", "num_tasks"),
    [
        ([2] * 70, 3),
        ([0, 3, 0, 0, 1] * 8, 2),
        ([40, 40, 30, 2, 2, 2, 2, 2, 2, 2, 2, 2], 2),
        # One alone has more than a task is to hold; and where all are large none is sent.
        ([300, *[2] * 20], 2),
        ([99] * 10, 0),
    ],
)
def test_each_table_is_what_its_file_holds_and_tasks_hold_few_rows(monkeypatch, counts, num_tasks):
    monkeypatch.setattr(small_files, "MANY", 10)
    monkeypatch.setattr(small_files, "_ROWS", 100)
    urls, asked = urls_of(counts), []
    found = list(tables_of(urls, counts, read, tasks(asked)))
    assert [one.to_pydict() for one in found] == [read(url).to_pydict() for url in urls]
    assert len(asked) == num_tasks
    assert list(itertools.chain(*asked)) == (urls if num_tasks else [])
    for group in asked:
        assert len(group) == 1 or sum(int(url.rpartition("-")[2]) for url in group) <= 100


def test_a_count_that_is_wrong_costs_no_row(monkeypatch):
    monkeypatch.setattr(small_files, "MANY", 10)
    urls = urls_of([3] * 40)
    found = list(tables_of(urls, [1] * 40, read, tasks([])))
    assert [one.num_rows for one in found] == [3] * 40


def test_few_files_are_read_here():
    asked = []
    assert len(list(tables_of(urls_of([1] * 40), [1] * 40, read, tasks(asked)))) == 40
    assert asked == []
