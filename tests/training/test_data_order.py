"""The order of the data: every example once an epoch, in batches of even size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrad.training.data_order import DataOrder, epoch_order


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


@settings(deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 70), st.integers(0, 500), st.integers(0, 3), st.integers(0)
)
def test_through_a_buffer_an_epoch_is_every_example_once(count, batch_size, buffer, epoch, seed):
    order = DataOrder(count, batch_size, seed, buffer)
    first = epoch * order.steps_per_epoch
    batches = [order.batch(first + i) for i in range(order.steps_per_epoch)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert {order.epoch_of(first + i) for i in range(order.steps_per_epoch)} == {epoch}


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 200), st.integers(0, 9))
def test_a_buffer_that_holds_everything_gives_the_order_of_memory(count, more, epoch):
    expected = np.random.default_rng([7, epoch]).permutation(count)
    np.testing.assert_array_equal(epoch_order(count, 7, epoch, count + more), expected)
    np.testing.assert_array_equal(epoch_order(count, 7, epoch), expected)


def test_a_buffer_is_read_in_runs_and_mixes_places_from_all_over():
    """Of 1,024 examples a buffer: 256 runs of 4 neighbours, none left in the order of the data."""
    order = epoch_order(100_000, 0, 1, 1024)
    for at in range(0, 90_000, 1024):
        found = order[at : at + 1024]
        runs = np.unique(found // 4)
        assert len(runs) == 256
        assert runs.min() < 2_000
        assert runs.max() > 23_000
        assert np.mean(np.diff(found) == 1) < 0.02
    assert not np.array_equal(order, epoch_order(100_000, 0, 2, 1024))
    assert not np.array_equal(order, epoch_order(100_000, 1, 1, 1024))
