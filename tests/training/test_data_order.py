"""The order of the data: every example once an epoch, in batches of even size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrad.training.data_order import DataOrder


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 5))
def test_an_epoch_is_every_example_once_in_batches_that_differ_by_one(count, batch_size, seed):
    order = DataOrder(count, batch_size, seed)
    for epoch in (0, 3):
        first = epoch * order.steps_per_epoch
        batches = [order.batch(first + i) for i in range(order.steps_per_epoch)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(count))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
    assert order.steps_per_epoch == -(-count // batch_size)


def test_no_update_is_made_by_a_single_example_where_one_is_left_over():
    """54,017 examples by 128 are 422 batches and one example over."""
    order = DataOrder(54_017, 128, 0)
    assert {len(order.batch(i)) for i in range(order.steps_per_epoch)} == {127, 128}


@pytest.mark.parametrize("step", [0, 7, 23])
def test_a_step_is_a_function_of_seed_and_step_alone(step):
    walked = DataOrder(100, 16, 3)
    for i in range(step):
        walked.batch(i)
    assert np.array_equal(walked.batch(step), DataOrder(100, 16, 3).batch(step))
    assert not np.array_equal(walked.batch(step), DataOrder(100, 16, 4).batch(step))
