import json
import pickle

import pytest

from raygrad import config_values
from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.config_values import asked_of, from_dict, identity, to_dict
from raygrad.errors import ConfigError, DataError, unknown_name
from raygrad.storage.manifest import digest

DIGESTS = [
    "29e13e211cdb760e432b92fb1201084b",
    "26896bfde1ca67fb063ab97689515d15",
    "599711e42c239c0d707565abe616d6ad",
    "9b79b1ce0808061005634fa02ca5daea",
    "9ba75efe047cf7b75790b46ab6233b6c",
]
"""Of the sections at their defaults, as the first run folders hold them."""


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
        (lambda: TrainConfig(data="tape"), "data must be of"),
        (lambda: TrainConfig(loaders=-1), "loaders must be at least 0"),
        (lambda: TrainConfig(shuffle_buffer=-1), "shuffle_buffer must be at least 0"),
        (lambda: SweepConfig(data="tape"), "data must be of"),
        (
            lambda: StudyConfig(
                run="r", train=TrainConfig(augment="photo_crop"), sweep=SweepConfig(data="disk")
            ),
            "photo_crop .* must be stream, got 'disk'",
        ),
        (lambda: TrainConfig(learning_rate=float("nan")), "learning_rate"),
        (lambda: TrainConfig(lr_decay_epochs=(5, 3)), "lr_decay_epochs"),
        (lambda: TrainConfig(bound_epochs=(0, 3)), "bound_epochs"),
        (lambda: TrainConfig(augment="crop"), "augment"),
        (lambda: TrainConfig(numerics="fp16"), "numerics"),
        (lambda: ScoreConfig(numerics="float32"), "numerics"),
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


def test_a_field_gained_later_leaves_the_identity_of_older_runs(monkeypatch):
    """At its default it is left out; with another value it is part of what was asked."""
    first = config_values._FIRST_FIELDS["TrainConfig"].replace("momentum", "")
    monkeypatch.setitem(config_values._FIRST_FIELDS, "TrainConfig", first)
    assert "momentum" not in identity(TrainConfig())
    assert identity(TrainConfig(momentum=0.8))["momentum"] == 0.8
    assert identity(TrainConfig())["weight_decay"] == 5e-4, "a first field at its default"


def test_the_identities_of_the_first_run_folders_are_what_they_were():
    """Digests of stages that are complete in someone's run folder must not change."""
    sections = (DataConfig(), TrainConfig(), ScoreConfig(), SelectConfig(), SweepConfig())
    assert [digest(identity(section)) for section in sections] == DIGESTS


def test_the_arithmetic_of_older_run_folders_is_read_under_its_new_name():
    """`precision` and `dtype` became `numerics`; float32 is exact; no digest changes with it."""
    values = to_dict(StudyConfig("r"))
    for section, name, value in (("train", "precision", "bf16"), ("score", "dtype", "float32")):
        del values[section]["numerics"]
        values[section][name] = value
    config = from_dict(values)
    assert (config.train.numerics, config.score.numerics) == ("bf16", "exact")
    assert identity(config.train)["precision"] == "bf16"
    assert identity(ScoreConfig(numerics="tf32"))["dtype"] == "tf32"
    assert asked_of(config.score)["numerics"] == "exact"


def test_the_nearest_right_name_is_offered():
    text = unknown_name("method", "max_gradiant", ["random", "max_gradient"])
    assert "got 'max_gradiant'. Did you mean 'max_gradient'?" in text


@pytest.mark.parametrize("error", [ConfigError("a must b, got c."), DataError("x")])
def test_errors_survive_pickling(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
