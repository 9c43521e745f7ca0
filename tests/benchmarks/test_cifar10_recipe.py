"""What the benchmark of the fast recipe says of work and of seconds."""

from pathlib import Path

import pytest
from torch import nn

from benchmarks import cifar10_recipe
from benchmarks.cifar10_recipe import CountedState, changed, flops_of_training
from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.training.models import ImageSpec


def test_flops_are_those_of_the_products_forward_and_backward(monkeypatch):
    """One convolution by hand: its input needs no gradient, so backward costs what forward does."""
    monkeypatch.setattr(
        cifar10_recipe,
        "build_network",
        lambda name, spec, seed: nn.Conv2d(3, 4, 3, padding=1, bias=False),
    )
    config = TrainConfig(epochs=3, small_epochs=1, small_size=4)
    found = flops_of_training(config, ImageSpec(3, 8, 8, 10), 100)
    of_pixel = 2 * 3 * 4 * 9
    assert found == 100 * 2 * of_pixel * (1 * 16 + 2 * 64)


def test_fields_are_changed_by_name_and_what_is_no_field_or_value_is_refused():
    config = changed(TrainConfig(), ["epochs=12", "loss=label_smoothing=0.1", "bound_epochs=(1,)"])
    assert (config.epochs, config.loss, config.bound_epochs) == (12, "label_smoothing=0.1", (1,))
    with pytest.raises(ConfigError, match="epochs"):
        changed(TrainConfig(), ["epochs=0"])
    with pytest.raises(TypeError, match="epoks"):
        changed(TrainConfig(), ["epoks=3"])


def test_seconds_of_the_processes_before_are_counted(tmp_path: Path):
    (tmp_path / "a.seconds").write_text("1000.5")
    fresh, gone_on = CountedState(tmp_path / "b"), CountedState(tmp_path / "a")
    assert 0 < fresh.cpu_s < 1000
    assert gone_on.cpu_s == pytest.approx(1000.5 + fresh.cpu_s, abs=1.0)
