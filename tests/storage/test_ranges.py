"""Plans of requests: nothing asked for is left out, and few examples move few bytes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrad.storage import ranges
from raygrad.storage.ranges import (
    LOCAL_COST,
    S3_COST,
    SERVER_COST,
    StorageCost,
    cost_of,
    plan_ranges,
)


def layout(sizes):
    """Offsets of images in a tar of image and label members."""
    blocks = -(-np.asarray(sizes) // 512) + 3
    return 512 + 512 * (np.cumsum(blocks) - blocks)


def covered(plan, offsets, sizes):
    """Examples found in each request, by looking at every byte range."""
    return [
        [
            at
            for at in range(int(plan.first[r]), int(plan.first[r + 1]))
            if plan.starts[r] <= offsets[at] - 512 and offsets[at] + sizes[at] <= plan.stops[r]
        ]
        for r in range(len(plan.starts))
    ]


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=60),
    share=st.floats(0.02, 1.0),
    request_s=st.sampled_from([0.0, 20e-6, 2e-3, 10.0]),
    seed=st.integers(0, 99),
)
def test_every_example_is_in_exactly_one_request(sizes, share, request_s, seed):
    sizes = np.array(sizes)
    offsets = layout(sizes)
    chosen = np.random.default_rng(seed).random(len(sizes)) < share
    offsets, sizes = offsets[chosen], sizes[chosen]
    plan = plan_ranges(offsets, sizes, StorageCost(request_s, 80e6))
    assert list(itertools.chain(*covered(plan, offsets, sizes))) == list(range(len(offsets)))
    assert (plan.starts[1:] >= plan.stops[:-1]).all()


@pytest.mark.parametrize("cost", [LOCAL_COST, S3_COST, SERVER_COST])
@pytest.mark.parametrize("mean_bytes", [300, 6_000, 110_000])
def test_one_percent_moves_at_most_two_percent_of_the_bytes(cost, mean_bytes):
    rng = np.random.default_rng(0)
    sizes = rng.gamma(4.0, mean_bytes / 4, 20_000).astype(np.int64) + 1
    offsets = layout(sizes)
    total = int(offsets[-1] + sizes[-1])
    chosen = np.sort(rng.choice(len(sizes), 200, replace=False))
    plan = plan_ranges(offsets[chosen], sizes[chosen], cost)
    assert plan.num_bytes <= 0.021 * total


@pytest.mark.parametrize("cost", [LOCAL_COST, S3_COST])
def test_a_whole_shard_is_read_through_once_in_bounded_pieces(cost):
    sizes = np.full(2_000, 110_000)
    offsets = layout(sizes)
    plan = plan_ranges(offsets, sizes, cost)
    total = int(offsets[-1] + sizes[-1])
    assert plan.num_bytes <= total
    assert len(plan.starts) <= 1.1 * total / ranges.MAX_RANGE_BYTES + 1
    assert (plan.stops - plan.starts).max() <= ranges.MAX_RANGE_BYTES


def test_a_larger_share_is_streamed_where_requests_cost_more_than_bytes():
    """Half of many small images on S3 comes in few requests; a dear request decides likewise."""
    sizes = np.full(20_000, 300)
    offsets = layout(sizes)
    half = np.flatnonzero(np.random.default_rng(0).random(20_000) < 0.5)
    assert len(plan_ranges(offsets[half], sizes[half], S3_COST).starts) <= 10
    few = half[::200]
    assert len(plan_ranges(offsets[few], sizes[few], S3_COST).starts) > 10
    assert len(plan_ranges(offsets[few], sizes[few], StorageCost(10.0, 80e6)).starts) <= 10


@pytest.mark.parametrize(("num_bytes", "num_requests"), [(20_000, 1), (110_000, 12)])
def test_a_tenth_of_a_shard_on_s3_is_one_request_where_its_images_are_small(
    num_bytes, num_requests
):
    """Requests of 2 ms each against ten times the bytes at 320 MB/s, worked out by hand.

    Of 128 images of 20 kB: 13 x 2 ms + 0.8 ms by ranges, 2 ms + 8.6 ms through. Of 110 kB: 30.5 ms
    against 46 ms.
    """
    sizes = np.full(128, num_bytes)
    offsets = layout(sizes)
    tenth = np.arange(4, 128, 10)
    found = len(plan_ranges(offsets[tenth], sizes[tenth], S3_COST).starts)
    assert found >= num_requests if num_requests > 1 else found == 1


def test_what_is_read_through_stays_in_proportion_to_what_is_asked_for():
    """Even where requests are dear, few images of a shard do not move all of it."""
    sizes = np.full(1_000, 2_000)
    offsets = layout(sizes)
    few = np.arange(0, 1_000, 40)
    through, bounded = (
        plan_ranges(offsets[few], sizes[few], StorageCost(2e-3, 320e6, most))
        for most in (40.0, 16.0)
    )
    assert len(through.starts) == 1
    assert bounded.num_bytes <= 2 * int(sizes[few].sum() + 1_536 * len(few))


def test_an_image_larger_than_a_request_is_one_request():
    sizes = np.array([10, 3 * ranges.MAX_RANGE_BYTES, 10])
    offsets = layout(sizes)
    plan = plan_ranges(offsets, sizes, LOCAL_COST)
    assert list(itertools.chain(*covered(plan, offsets, sizes))) == [0, 1, 2]


def test_no_example_is_no_request():
    empty = np.empty(0, np.int64)
    assert plan_ranges(empty, empty, S3_COST).num_bytes == 0


def test_cost_follows_the_kind_of_url():
    assert cost_of("s3://b/k") is S3_COST
    assert cost_of("https://b/k") is SERVER_COST
    assert cost_of("/a/b") is LOCAL_COST
