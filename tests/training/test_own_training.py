"""Own recipes, weights to start from, and loss and augmentation by name, in the loop itself."""

import numpy as np
import pytest
import torch

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.training.examples import Examples
from raygrad.training.loop import TrainingLoop
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.preprocess import Normalize
from raygrad.training.recipes import named_recipe
from raygrad.training.starting import initial_network

SPEC = ImageSpec(1, 8, 8, 3)
MINE = TrainConfig(epochs=90, augment="flip+mixup")
NUMBER = 3


def mine():
    return MINE


def fails():
    raise RuntimeError("no")


@pytest.mark.parametrize("name", ["mine", "MINE"])
def test_a_recipe_may_be_ones_own(name):
    assert named_recipe(f"{__name__}:{name}") == MINE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NUMBER", "got a int. Write 'def mine"),
        ("fails", "got RuntimeError: no"),
        ("none", "must name a callable of its module"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_right_one(name, text):
    with pytest.raises(ConfigError, match=text):
        named_recipe(f"{__name__}:{name}")


def trained(config, network=None):
    """Trains on images whose brightness is their class."""
    labels = torch.arange(60) % 3
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (60, 1, 8, 8)))
    images = (labels.view(-1, 1, 1, 1) * 90 + noise).to(torch.uint8)
    torch.manual_seed(0)
    network = network or build_network("linear", SPEC, 0)
    examples = Examples(images, labels)
    loop = TrainingLoop(
        network, config, Normalize((0.5,), (0.25,)), examples, examples, order_seed=1
    )
    return loop.run(), network


@pytest.mark.parametrize(
    "fields",
    [
        {"augment": "mixup"},
        {"augment": "flip+cutout+mixup", "cutout_pixels": 2, "loss": "label_smoothing=0.1"},
        {"augment": "random_resized_crop", "loss": "focal=2"},
    ],
)
def test_a_network_learns_with_them(fields):
    config = TrainConfig(
        epochs=12, batch_size=10, learning_rate=0.01, lr_decay_epochs=(), patience=12, **fields
    )
    out, _ = trained(config)
    assert out.best_val_accuracy > 0.9
    again, _ = trained(config)
    assert [row["train_loss"] for row in again.history] == [
        row["train_loss"] for row in out.history
    ]


def test_training_begins_with_the_weights_that_are_given(tmp_path):
    weights = build_network("mlp", SPEC, 7).state_dict()
    torch.save(weights, tmp_path / "mlp.pt")
    config = TrainConfig(network="mlp", start_from=str(tmp_path / "mlp.pt"))
    found = initial_network("mlp", config, SPEC, seed=0).state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in weights.items())
    other = ImageSpec(1, 8, 8, 5)
    found = initial_network("mlp", config, other, seed=0).state_dict()
    fresh = build_network("mlp", other, 0).state_dict()
    kept = [key for key in found if torch.equal(found[key], weights[key][: len(found[key])])]
    assert [key for key in found if found[key].shape != weights[key].shape] == list(found)[-2:]
    assert kept[: len(found) - 2] == list(found)[:-2]
    assert torch.equal(found[list(found)[-1]], fresh[list(found)[-1]]), "the last layer is fresh"


def test_weights_of_another_network_are_no_beginning(tmp_path):
    torch.save(build_network("linear", SPEC, 7).state_dict(), tmp_path / "w.pt")
    config = TrainConfig(network="mlp", start_from=str(tmp_path / "w.pt"))
    with pytest.raises(ConfigError, match="must fit network 'mlp'"):
        initial_network("mlp", config, SPEC, seed=0)
    with pytest.raises(ConfigError, match="must exist"):
        initial_network("mlp", TrainConfig(start_from="none.pt"), SPEC, seed=0)
