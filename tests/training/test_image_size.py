"""Photographs of several sizes become one array where a size is asked for, and only there."""

import pytest

from raygrad.config import DataConfig
from raygrad.config_values import identity
from raygrad.data.index import build_index
from raygrad.data.transforms import CropTransform
from raygrad.errors import ConfigError, DataError
from raygrad.training.study_data import load_study_data
from tests.data.making import example, jpeg, put, tar

SIZES = ((40, 30), (30, 40), (64, 64), (33, 80))


@pytest.fixture
def photographs(tmp_path):
    def members(prefix, count):
        return [
            member
            for n in range(count)
            for member in example(f"{prefix}{n}", n % 2, "jpg", jpeg(n, SIZES[n % len(SIZES)]))
        ]

    train = put(tmp_path, "train.tar", tar(members("a", 40)))
    test = put(tmp_path, "test.tar", tar(members("b", 8)))
    return build_index([str(train)], [str(test)], val_fraction=0.2)


def test_photographs_of_several_sizes_train_at_the_size_that_is_asked_for(photographs):
    data = load_study_data(photographs, 2, 3, CropTransform.to_size(28))
    assert (data.spec.height, data.spec.width, data.spec.channels) == (28, 28, 3)
    assert len(data.train.labels) + len(data.val.labels) == 40


def test_without_a_size_they_are_refused_and_the_flag_is_named(photographs):
    with pytest.raises(DataError, match=r"--data\.image-size"):
        load_study_data(photographs, 2, 3)


def test_the_papers_proportion_is_256_to_224():
    assert CropTransform.to_size(224) == CropTransform(resize=256, crop=224)
    assert CropTransform.to_size(1) == CropTransform(resize=1, crop=1)


def test_a_run_of_before_the_field_keeps_its_identity():
    assert "image_size" not in identity(DataConfig())
    assert identity(DataConfig(image_size=32)) != identity(DataConfig())
    with pytest.raises(ConfigError, match="image_size must be positive"):
        DataConfig(image_size=0)
