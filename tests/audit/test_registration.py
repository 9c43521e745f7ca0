"""Pictures are compared once one is laid over the other: against a search over all places."""

import itertools

import numpy as np
import pytest
from PIL import Image

from raygrad.audit.registration import _halved, _smoothed, registered_distances

SIDE = 32


def waves(seed, side=96):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (7, 7)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def greys(image):
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def distance(one, other):
    return registered_distances(np.stack([one, other]), np.array([0]), np.array([1]))[0]


def by_search(one, other):
    """The least of 1 - correlation over crops of either, by a pixel of 96 each."""
    found = []
    for a, b in ((one, other), (other, one)):
        for left, top, right, bottom in itertools.product(range(0, 5, 2), repeat=4):
            part = greys(a.crop((left, top, a.width - right, a.height - bottom)))
            found.append(1 - np.corrcoef(part.ravel(), greys(b).ravel())[0, 1])
    return min(found)


@pytest.mark.parametrize("box", [(2, 0, 96, 96), (0, 4, 94, 92), (2, 2, 94, 94), (4, 4, 92, 96)])
def test_a_cropped_picture_is_as_near_as_a_search_over_all_crops_finds_it(box):
    whole = waves(1)
    part = whole.crop(box)
    found = distance(greys(whole), greys(part))
    plain = 1 - np.corrcoef(greys(whole).ravel(), greys(part).ravel())[0, 1]
    assert found < by_search(whole, part) + 1e-3
    assert found < 0.1 * plain


def test_strangers_stay_apart_wherever_they_are_laid():
    for seed in range(6):
        one, other = waves(2 * seed + 10), waves(2 * seed + 11)
        assert distance(greys(one), greys(other)) > 0.7 * by_search(one, other) > 0.3


def test_gain_and_offset_do_not_count_and_order_does_not():
    one, other = greys(waves(3)), greys(waves(4))
    assert distance(one, (0.5 * one + 60).astype(np.uint8)) < 1e-3
    assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-6)
    assert distance(one, 255 - one) > 0.9


def test_pictures_of_one_colour_are_like_nothing():
    flat = np.full((SIDE, SIDE), 9, np.uint8)
    assert distance(flat, flat) == pytest.approx(1)
    assert distance(flat, greys(waves(5))) == pytest.approx(1)


def test_pictures_that_differ_along_one_side_alone_are_compared_all_the_same():
    """Shift and stretch of a ramp are a gain and an offset: no place is better than another."""
    ramp = np.tile(np.linspace(40, 200, SIDE).astype(np.uint8), (SIDE, 1))
    stripes = np.tile((np.arange(SIDE) // 4 % 2 * 200).astype(np.uint8), (SIDE, 1))
    assert distance(ramp, ramp) == pytest.approx(0, abs=1e-4)
    assert distance(ramp, ramp.T) > 0.9
    assert distance(stripes, np.roll(stripes, 1, axis=1)) < 0.2
    assert np.isfinite(distance(ramp, stripes))


def test_pictures_are_smoothed_and_halved_as_by_a_convolution():
    found = _smoothed(np.random.default_rng(0).integers(0, 256, (3, 6, 8)).astype(np.uint8))
    greys = np.random.default_rng(0).integers(0, 256, (3, 6, 8))
    wide = np.pad(greys, ((0, 0), (1, 1), (1, 1)), mode="edge").astype(float)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(1, 2))
    np.testing.assert_array_equal(found.numpy(), (windows * kernel).sum(axis=(3, 4)))
    means = found.numpy().reshape(3, 3, 2, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(_halved(found).numpy(), means, rtol=1e-6)
