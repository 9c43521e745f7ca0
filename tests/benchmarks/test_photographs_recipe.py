"""The recipe of the photographs is judged on images that it neither trains on nor tests on."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.kept_table import PHOTOGRAPHS
from benchmarks.photographs_recipe import TRIED, Candidate, judged, units
from raygrad.data.arrays import ImageArrays
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.training.preprocess import Normalize
from raygrad.training.study_data import StudyData


def arrays(labels: np.ndarray, seed: int) -> ImageArrays:
    """Images that show their label by how light they are."""
    noise = np.random.default_rng(seed).integers(0, 40, (len(labels), 1, 16, 16))
    images = (noise + 100 * labels[:, None, None, None]).astype(np.uint8)
    keys = [f"{seed}-{at}" for at in range(len(labels))]
    return ImageArrays(images, labels, keys, pa.Table.from_pylist([], REJECT_SCHEMA))


def test_the_recipe_of_the_study_is_one_of_those_that_were_tried():
    recipe = PHOTOGRAPHS.recipe
    assert recipe in [candidate.recipe(recipe.network) for candidate, _ in TRIED]
    names = [name for name, *_ in units()]
    assert len(names) == len(set(names)) == sum(len(of) for _, of in TRIED)


def test_images_that_are_left_out_judge_and_the_test_set_is_not_read(monkeypatch):
    """A network that knows each training image by heart is judged by the others alone."""
    data = StudyData(
        arrays(np.arange(40) % 2, 0),
        arrays(np.arange(8) % 2, 1),
        test=None,  # type: ignore[arg-type]  # whoever reads it fails
        num_classes=2,
        normalize=Normalize((0.4,), (0.25,)),
    )
    config = replace(
        Candidate("sgd", 0.05, 8, 6, 0).recipe("linear"), numerics="exact", augment="none"
    )
    row = judged(data, config, 0.25, seed=0)
    assert (row["num_train"], row["num_left_out"], row["steps"]) == (10, 30, 12)
    assert row["left_out_accuracy"] == pytest.approx(1.0)
    # Labels of what is left out are the judges: turned around, all is wrong.
    seen = np.sort(np.random.default_rng(100).choice(40, 10, replace=False))
    labels = 1 - data.train.labels
    labels[seen] = data.train.labels[seen]
    turned = replace(data, train=replace(data.train, labels=labels))
    assert judged(turned, config, 0.25, seed=0)["left_out_accuracy"] == pytest.approx(0.0)
