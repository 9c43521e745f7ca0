"""Copies are found among pictures that are no copies, by a threshold that the data give."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raygrad.audit import repeats
from raygrad.audit.pictures import picture_facts
from raygrad.audit.repeats import (
    MOST_COPIES,
    NearCopies,
    Pairs,
    _whitened,
    equal_pairs,
    groups_of,
    near_copies,
)


def scenes(number, seed=0, side=64):
    """Smooth random pictures: sums of a few waves and patches, each its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    found = []
    for _ in range(number):
        picture = np.zeros((side, side, 3))
        for _ in range(6):
            wave = np.sin(2 * np.pi * (rng.normal(0, 2) * x + rng.normal(0, 2) * y + rng.random()))
            left, top = rng.random(2)
            patch = np.exp(-((x - left) ** 2 + (y - top) ** 2) / 0.05)
            picture += (wave[..., None] + 2 * patch[..., None]) * rng.normal(0, 1, 3)
        picture = (picture - picture.min()) / np.ptp(picture)
        found.append((255 * picture).astype(np.uint8))
    return found


def rescaled(pixels):
    image = Image.fromarray(pixels)
    size = (round(image.width * 0.7), round(image.height * 0.7))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def recompressed(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=40)
    return np.asarray(Image.open(out))


def cropped(pixels):
    return pixels[2:-1, 1:-2]


def test_equal_pixels_have_one_digest_and_others_another():
    one, other = scenes(2)
    assert picture_facts(one).digest == picture_facts(one.copy()).digest
    assert picture_facts(one).digest != picture_facts(other).digest
    flat = np.zeros((4, 6, 3), np.uint8)
    assert picture_facts(flat).digest != picture_facts(flat.reshape(6, 4, 3)).digest


def copies_among(pictures: list) -> NearCopies:
    """What is found of pictures by their own facts."""
    facts = [picture_facts(one) for one in pictures]
    small, descriptors = (np.stack([getattr(f, n) for f in facts]) for n in ("small", "descriptor"))
    return near_copies(small, [descriptors])


def as_set(pairs: Pairs) -> set:
    return set(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True))


def digits(number, side=28):
    """Handwritten digits as large as those of MNIST, which are alike by hundreds."""
    small = (load_digits().images * 15.9).astype(np.uint8)[:number]
    size = (side - 6, side - 6)
    large = [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in small]
    return [np.pad(np.asarray(one), 3)[:, :, None] for one in large]


def cropped_by_one(pixels):
    return np.ascontiguousarray(pixels[1:, :-1])


def test_near_copies_of_each_kind_are_found_and_no_others():
    """Of 300 pictures 30 have a copy: 95% of what is called one is one, and 90% are found."""
    pictures = scenes(300, seed=3)
    change = [rescaled, recompressed, cropped]
    copies = [change[at % 3](pictures[at]) for at in range(30)]
    pairs = as_set(copies_among(pictures + copies).pairs)
    planted = {(at, 300 + at) for at in range(30)}
    assert len(pairs & planted) >= 0.9 * len(planted)
    assert len(pairs & planted) >= 0.95 * len(pairs)


def test_digits_that_are_cropped_by_a_pixel_are_found_among_digits_that_are_alike():
    """No similarity of descriptors parts them from strangers; their pixels, laid over, do."""
    pictures = digits(700)
    copies = [cropped_by_one(pictures[at]) for at in range(30)]
    pairs = as_set(copies_among(pictures + copies).pairs)
    planted = {(at, 700 + at) for at in range(30)}
    assert len(pairs & planted) >= 0.9 * len(planted)
    assert len(pairs & planted) >= 0.95 * len(pairs)


def test_where_most_pictures_have_a_copy_it_is_found():
    """What stands out by chance is not judged by what most first neighbours do."""
    pictures = scenes(100, seed=4)
    pairs = as_set(copies_among(pictures + [recompressed(one) for one in pictures]).pairs)
    assert len(pairs & {(at, 100 + at) for at in range(100)}) >= 90
    assert len(pairs) <= 105


def test_larger_groups_do_not_prove_that_pairs_are_chance():
    """As CIFAR-10 holds them: few of each size, so that none is settled and all would be decoys."""
    pictures = scenes(160, seed=6)
    change = [rescaled, recompressed, cropped, lambda one: one // 2 + 40, lambda one: one[1:, 1:]]
    numbers = [1] * 24 + [2] * 6 + [3] * 4 + [4] * 2 + [5] * 2
    planted, copies = set(), []
    for at, number in enumerate(numbers):
        if number == 1:
            planted.add((at, len(pictures) + len(copies)))
        copies += [change[(at + n) % 5](pictures[at]) for n in range(number)]
    pairs = as_set(copies_among(pictures + copies).pairs)
    assert len(pairs & planted) >= 0.9 * len(planted)


def test_closed_groups_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    for number in (6, 12, 30):
        points = np.round(rng.random((number, 2)), 1)  # with ties
        one, other = np.triu_indices(number, 1)
        distances = np.hypot(*(points[one] - points[other]).T)
        nearest, _ = repeats._by_picture(one, other, distances, number)
        of = [[int(one[p] + other[p] - at) if p >= 0 else -1 for p in row]
              for at, row in enumerate(nearest)]  # fmt: skip
        for at in range(number):
            for k in range(1, nearest.shape[1] + 1):
                mine = {at, *of[at][:k]}
                expected = -1 not in mine and all({b, *of[b][:k]} == mine for b in of[at][:k])
                assert repeats._closed(one, other, nearest)[at, k - 1] == expected


@pytest.mark.parametrize("pictures", [scenes(200, seed=1), digits(400)], ids=["scenes", "digits"])
def test_pictures_without_a_copy_are_left_alone(pictures):
    assert len(copies_among(pictures).pairs.one) == 0


def test_several_copies_of_one_picture_are_found_and_more_are_its_surroundings():
    """What the test of gaps cannot tell is left alone, not half found."""
    pictures = scenes(150, seed=5)
    for number in (3, 3 * MOST_COPIES):
        copies = [np.clip(pictures[0] + np.uint8(at), 0, 255) for at in range(number)]
        single = [recompressed(one) for one in pictures[1:40]]
        pairs = as_set(copies_among([*pictures[1:], *single, *copies]).pairs)
        of_many = {pair for pair in pairs if pair[0] >= 188}
        assert bool(of_many) == (number < MOST_COPIES)


def test_groups_are_the_connected_parts():
    pairs = equal_pairs([b"a", b"b", b"a", b"c", b"a", b"b"])
    assert groups_of([pairs], 6).tolist() == [0, 1, 0, -1, 0, 1]
    bridge = Pairs(np.array([2]), np.array([5]), np.array([0.9]))
    assert groups_of([pairs, bridge], 6).tolist() == [0, 0, 0, -1, 0, 0]
    assert groups_of([], 3).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_handful_of_pictures_is_no_reason_to_fail(number):
    small = np.random.default_rng(0).integers(0, 256, (number, 32, 32)).astype(np.uint8)
    vectors = np.random.default_rng(0).normal(size=(number, 63)).astype(np.float32)
    assert len(near_copies(small, [vectors]).pairs.one) == 0


def test_vectors_are_whitened_as_at_once_in_blocks_of_any_size(monkeypatch):
    vectors = np.random.default_rng(0).normal(3, 2, (50, 6)).astype(np.float32)
    vectors[:, 2] = 7.0  # tells nothing apart
    vectors[11] = vectors.mean(axis=0)
    values = vectors - vectors.mean(axis=0, dtype=np.float64)
    values = np.delete(values / np.maximum(vectors.std(axis=0, dtype=np.float64), 1e-9), 2, axis=1)
    expected = np.insert(values, 2, 0.0, axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for block in (50, 7, 1):
        monkeypatch.setattr(repeats, "_BLOCK", block)
        rows = np.delete(np.arange(50), 11)
        np.testing.assert_allclose(_whitened(vectors)[rows], expected[rows], atol=1e-6)
    assert _whitened(vectors[:0]).shape == (0, 6)
