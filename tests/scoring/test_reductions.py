"""Norms of rows: in blocks that stay in the cache, and bit for bit as without blocks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrad.scoring.calls import PARSERS, _positions, _signature
from raygrad.scoring.reductions import _BLOCK, _norms_in_block, rank_one

ALL = ("l1", "l2", "linf")


@given(st.integers(1, 300), st.integers(1, 3000), st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_blocks_of_rows_change_no_bit(rows: int, width: int, transposed: bool) -> None:
    """Each row adds up by itself, so which rows are beside it is all the same."""
    shape = (width, rows) if transposed else (rows, width)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(rows * width))
    x = x.T if transposed else x
    found, whole = rank_one(x, torch.ones(rows, 1), ALL), _norms_in_block(x, ALL)
    assert all(torch.equal(found[norm], whole[norm]) for norm in ALL)


def test_there_are_blocks() -> None:
    """The claim above is of more than one block."""
    assert 2 * 4 * _BLOCK < 300 * 3000


@pytest.mark.parametrize("parser", sorted({*PARSERS.values()}, key=lambda p: p.__qualname__))
def test_positional_calls_are_taken_exactly_where_the_signature_takes_them(parser) -> None:
    """The shortcut past binding arguments says what binding says, or leaves it to it."""
    for many in range(12):
        try:
            _signature(parser).bind(*range(many))
        except TypeError:
            assert many not in _positions(parser)
