import numpy as np
import pytest
import torch

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.training.augment import augment, mixed_labels, mixup_partners

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


def by_name(images, kind, rows=None, of=None, step=0, **fields):
    config = TrainConfig(augment=kind, **fields)
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    return augment(images, config, seed=3, step=step, rows=rows, of=of or len(images))


KINDS = ["shift", "shift_flip", "flip", "random_resized_crop", "cutout", "flip+cutout"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_becomes_of_an_image_depends_on_its_row_and_step_alone(kind):
    """Half of a batch is varied as in the whole: the number of workers changes nothing."""
    images = torch.randint(1, 256, (8, 3, 16, 12), dtype=torch.uint8)
    whole = by_name(images, kind)
    assert whole.shape == images.shape
    assert whole.dtype == torch.uint8
    assert torch.equal(by_name(images[1::2], kind, rows=range(1, 8, 2), of=8), whole[1::2])
    assert not torch.equal(whole, images)
    assert not torch.equal(by_name(images, kind, step=1), whole)


def test_cutout_blackens_one_square_and_nothing_else():
    images = torch.full((64, 1, 20, 20), 200, dtype=torch.uint8)
    out = by_name(images, "cutout", cutout_pixels=6)
    black = (out == 0).sum(dim=(1, 2, 3))
    assert set(out.unique().tolist()) == {0, 200}
    assert black.max() == 36
    assert black.min() > 0, "a centre on the edge leaves a quarter of the square at least"


def test_a_whole_crop_is_the_image_and_a_part_is_of_it():
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(16, 1, 1, 1)
    out = by_name(images, "random_resized_crop", crop_scale=0.2)
    assert out.min() >= 0
    assert out.max() <= 63
    spread = (out.amax(dim=(1, 2, 3)) - out.amin(dim=(1, 2, 3))).float()
    assert spread.max() < 64
    assert spread.min() > 8, "a fifth of the area or more"


def test_mixup_blends_pairs_of_the_global_batch_by_one_share_a_step():
    config = TrainConfig(augment="mixup", mixup_alpha=0.4)
    whole, share = mixup_partners(config, seed=1, step=5, rows=np.arange(10), of=10)
    part, again = mixup_partners(config, seed=1, step=5, rows=np.arange(0, 10, 2), of=10)
    assert sorted(whole) == list(range(10))
    assert share == again
    assert list(part) == list(whole[::2])
    labels = mixed_labels(torch.tensor([0, 2]), torch.tensor([1, 2]), 0.75, 3)
    assert labels.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    shares = [
        mixup_partners(config, seed=1, step=s, rows=np.arange(2), of=2)[1] for s in range(400)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08), "Beta(a, a) is even"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"augment": "mixupp"}, "augment must be none or of .*'mixupp'"),
        ({"augment": "shift+random_resized_crop"}, "one way"),
        ({"augment": "shift_flip+flip"}, "mirror once"),
        ({"augment": "photo_crop+flip"}, "mirror once"),
        ({"augment": "photo_crop+shift"}, "one way"),
        ({"augment": "photo_crop", "data": "disk"}, r"photographs, .* stream, got 'disk'"),
        ({"augment": "photo_resized_crop", "data": "memory"}, r"stream, got 'memory'"),
        ({"augment": "cutout+cutout"}, "repeat"),
        ({"augment": "mixup", "dynamics": True}, "single images"),
        ({"augment": "mixup", "mixup_alpha": 0.0}, "mixup_alpha"),
        ({"augment": "random_resized_crop", "crop_scale": 1.5}, "crop_scale"),
    ],
)
def test_augmentations_that_cannot_be_are_refused_by_name(fields, text):
    with pytest.raises(ConfigError, match=text):
        TrainConfig(**fields)
