"""Copies are found among pictures that are no copies, by a threshold that the data give."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raygrad.audit.pictures import mirrored, picture_facts
from raygrad.audit.repeats import Pairs, equal_pairs, groups_of, near_copies, neighbours


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


def test_the_mirrored_descriptor_is_that_of_the_mirrored_picture():
    (one,) = scenes(1)
    found = mirrored(picture_facts(one).descriptor[None])[0]
    np.testing.assert_allclose(found, picture_facts(one[:, ::-1]).descriptor, atol=1e-3)


def test_near_copies_of_each_kind_are_found_and_no_others():
    """Of 300 pictures 30 have a copy: 95% of what is called one is one, and 90% are found."""
    pictures = scenes(300, seed=3)
    change = [rescaled, recompressed, cropped]
    copies = [change[at % 3](pictures[at]) for at in range(30)]
    vectors = np.stack([picture_facts(p).descriptor for p in pictures + copies])
    found = near_copies(vectors, mirrored(vectors))
    pairs = set(zip(found.pairs.one.tolist(), found.pairs.other.tolist(), strict=True))
    planted = {(at, 300 + at) for at in range(30)}
    assert len(pairs & planted) >= 0.9 * len(planted)
    assert len(pairs & planted) >= 0.95 * len(pairs)


def test_pictures_without_a_copy_are_left_alone():
    vectors = np.stack([picture_facts(p).descriptor for p in scenes(200, seed=1)])
    assert len(near_copies(vectors, mirrored(vectors)).pairs.one) == 0


def test_neighbours_are_those_of_a_full_search():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(60, 4)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = neighbours(unit, unit)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_array_equal(found.at, np.argsort(-cosines, axis=1)[:, :8])
    np.testing.assert_allclose(found.similarity, -np.sort(-cosines, axis=1)[:, :8], atol=1e-6)


def test_handwritten_digits_are_no_copies_of_one_another_though_many_are_alike():
    """Their mirrored pictures are less alike: chance alone would let hundreds pass."""
    digits = (load_digits().images * 15.9).astype(np.uint8)[:800, :, :, None]
    copies = [np.clip(digits[at].astype(int) + 6, 0, 255).astype(np.uint8) for at in range(20)]
    vectors = np.stack([picture_facts(p).descriptor for p in [*digits, *copies]])
    pairs = near_copies(vectors, mirrored(vectors)).pairs
    planted = sum(o == 800 + i for i, o in zip(pairs.one, pairs.other, strict=True))
    assert planted >= 18
    assert len(pairs.one) <= planted + 2


def test_groups_are_the_connected_parts():
    pairs = equal_pairs([b"a", b"b", b"a", b"c", b"a", b"b"])
    assert groups_of([pairs], 6).tolist() == [0, 1, 0, -1, 0, 1]
    bridge = Pairs(np.array([2]), np.array([5]), np.array([0.9]))
    assert groups_of([pairs, bridge], 6).tolist() == [0, 0, 0, -1, 0, 0]
    assert groups_of([], 3).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_handful_of_pictures_is_no_reason_to_fail(number):
    vectors = np.random.default_rng(0).normal(size=(number, 63)).astype(np.float32)
    assert len(near_copies(vectors, mirrored(vectors)).pairs.one) == 0
