"""Pictures are compared once one is laid over the other: against a search over all places."""

import itertools

import numpy as np
import pytest
from PIL import Image

from raygrad.audit.registration import registered_distances

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
