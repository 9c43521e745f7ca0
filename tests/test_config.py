import json
import pickle

import pytest

from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.config_values import from_dict, identity, to_dict
from raygrad.errors import ConfigError, DataError, unknown_name


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_keep_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"keep_fraction must be in \(0, 1\], got"):
        SelectConfig(keep_fractions=(fraction,))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: DataConfig(val_fraction=1.0), "val_fraction"),
        (lambda: DataConfig(shard_bytes=0), "shard_bytes"),
        (lambda: TrainConfig(epochs=0), "epochs"),
        (lambda: TrainConfig(learning_rate=float("nan")), "learning_rate"),
        (lambda: TrainConfig(lr_decay_epochs=(5, 3)), "lr_decay_epochs"),
        (lambda: TrainConfig(bound_epochs=(0, 3)), "bound_epochs"),
        (lambda: TrainConfig(augment="crop"), "augment"),
        (lambda: TrainConfig(precision="fp16"), "precision"),
        (lambda: TrainConfig(cpus_per_worker=0), "cpus_per_worker"),
        (lambda: TrainConfig(min_workers=-1), "min_workers"),
        (lambda: ScoreConfig(columns=()), "columns"),
        (lambda: SelectConfig(methods=()), "methods"),
        (lambda: SelectConfig(seeds=(1, 1)), "seeds"),
        (lambda: SweepConfig(protocols=("equal_time",)), "protocols"),
        (lambda: StudyConfig(run=""), "run"),
        (lambda: StudyConfig(run="r", select=SelectConfig(score_column="el2n")), "score_column"),
    ],
)
def test_every_impossible_value_is_refused_by_name(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_a_configuration_survives_json():
    config = StudyConfig("r", select=SelectConfig(seeds=(3, 4)), train=TrainConfig(epochs=7))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_a_field_of_another_version_is_named():
    values = to_dict(StudyConfig("r"))
    values["train"]["warp"] = 9
    with pytest.raises(ConfigError, match="warp"):
        from_dict(values)


def test_how_work_is_done_is_not_what_comes_out():
    assert identity(TrainConfig(num_workers=1)) == identity(TrainConfig(num_workers=8))
    assert identity(TrainConfig(epochs=1)) != identity(TrainConfig(epochs=8))


def test_the_nearest_right_name_is_offered():
    text = unknown_name("method", "max_gradiant", ["random", "max_gradient"])
    assert "got 'max_gradiant'. Did you mean 'max_gradient'?" in text


@pytest.mark.parametrize("error", [ConfigError("a must b, got c."), DataError("x")])
def test_errors_survive_pickling(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
