import numpy as np
import pytest
import torch

from raygrad.config import TrainConfig
from raygrad.training.augment import augment

IMAGES = torch.arange(1, 1 + 6 * 2 * 5 * 4).reshape(6, 2, 5, 4).to(torch.uint8)


def varied(images, kind, rows, of=6, step=3, seed=7, pixels=2):
    config = TrainConfig(augment=kind, augment_pixels=pixels)
    return augment(images, config, seed=seed, step=step, rows=np.asarray(rows), of=of)


def moves_of(image, pixels=2):
    """Every way that an image can be moved and mirrored, by hand: {(down, right, flip): image}."""
    height, width = image.shape[1:]
    found = {}
    for down in range(-pixels, pixels + 1):
        for right in range(-pixels, pixels + 1):
            moved = torch.zeros_like(image)
            for row in range(height):
                for column in range(width):
                    if 0 <= row + down < height and 0 <= column + right < width:
                        moved[:, row, column] = image[:, row + down, column + right]
            found[down, right, False] = moved
            found[down, right, True] = moved.flip(2)
    return found


@pytest.mark.parametrize("kind", ["shift", "shift_flip"])
def test_every_image_is_one_of_the_moves_made_by_hand_and_shifts_never_mirror(kind):
    out = varied(IMAGES, kind, range(6))
    assert out.dtype == torch.uint8
    for image, found in zip(IMAGES, out, strict=True):
        ways = [way for way, moved in moves_of(image).items() if torch.equal(moved, found)]
        assert ways
        assert kind == "shift_flip" or any(not flip for *_, flip in ways)


def test_all_moves_and_both_mirrorings_occur_about_equally_often():
    image = torch.arange(1, 26, dtype=torch.uint8).reshape(1, 5, 5)
    names = {moved.numpy().tobytes(): way for way, moved in moves_of(image, 1).items()}
    out = varied(image.repeat(3600, 1, 1, 1), "shift_flip", range(3600), of=3600, pixels=1)
    counts = {}
    for found in out:
        way = names[found.numpy().tobytes()]
        counts[way] = counts.get(way, 0) + 1
    assert len(counts) == 18
    # 200 are expected of each, with a standard deviation of 14.
    assert all(130 < n < 270 for n in counts.values())


def test_how_an_image_is_varied_depends_on_seed_step_and_row_alone_not_on_the_ranks():
    whole = varied(IMAGES, "shift_flip", range(6))
    for rank in range(2):
        rows = np.arange(6)[rank::2]
        assert torch.equal(varied(IMAGES[rows], "shift_flip", rows), whole[rows])
    assert not torch.equal(varied(IMAGES, "shift_flip", range(6), step=4), whole)
    assert not torch.equal(varied(IMAGES, "shift_flip", range(6), seed=8), whole)


def test_none_returns_the_images_themselves():
    assert varied(IMAGES, "none", range(6)) is IMAGES
