"""What a picture is known by: facts that follow from its pixels and hold through scaling."""

import numpy as np
import pytest
from PIL import Image

from raygrad.audit.pictures import FREQUENCIES, picture_facts


def scene(side=48, seed=0):
    y, x = np.mgrid[0:side, 0:side] / side
    phase = np.random.default_rng(seed).random(3) * 6
    waves = [np.sin(6 * x + p) + np.cos(5 * y + 2 * p) for p in phase]
    picture = np.stack(waves, axis=2)
    return (255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)


def test_facts_of_a_plain_picture_are_its_numbers():
    facts = picture_facts(np.full((20, 30, 3), 77, np.uint8))
    assert (facts.width, facts.height) == (30, 20)
    assert facts.brightness == pytest.approx(77, abs=1)
    assert (facts.contrast, facts.one_colour) == (0.0, 1.0)
    assert np.abs(facts.descriptor).max() < 1e-3


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_share_of_the_commonest_colour_is_what_was_painted(share):
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 256, (64, 64, 3)).astype(np.uint8)
    pixels[: round(64 * share)] = 10
    assert picture_facts(pixels).one_colour == pytest.approx(share, abs=0.02)


def test_grey_pictures_and_colour_pictures_of_the_same_greys_have_one_descriptor():
    grey = scene()[:, :, :1]
    one, other = picture_facts(grey), picture_facts(np.repeat(grey, 3, axis=2))
    np.testing.assert_allclose(one.descriptor, other.descriptor, atol=1.0)
    assert one.digest != other.digest
    assert one.descriptor.shape == (FREQUENCIES**2 - 1,)


def test_scaling_a_picture_changes_its_descriptor_little_and_another_picture_much():
    pixels = scene()
    smaller = np.asarray(Image.fromarray(pixels).resize((36, 36), Image.Resampling.BICUBIC))
    here, there, other = (picture_facts(one).descriptor for one in (pixels, smaller, scene(seed=5)))
    assert np.linalg.norm(here - there) < 0.1 * np.linalg.norm(here - other)
