"""A fold's network has not seen what it judges, and what enters its last layer is what is kept."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from raygrad.errors import ConfigError, ResourceError
from raygrad.training.features import FeatureTap
from raygrad.training.fold_training import (
    audit_recipe,
    device_here,
    judged_fold,
    outputs,
    pass_size,
)
from raygrad.training.preprocess import Normalize
from tests.scoring.fake_device import skip_on_older_torch


def bars(number, seed=0):
    """Images of a bright row or a bright column, which any network tells apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, number)
    images = rng.integers(0, 60, (number, 1, 6, 6)).astype(np.uint8)
    for at, label in enumerate(labels):
        place = int(rng.integers(0, 6))
        if label:
            images[at, 0, :, place] = 255
        else:
            images[at, 0, place, :] = 255
    return images, labels


@pytest.fixture(scope="module")
def judged():
    images, labels = bars(240)
    held = np.arange(240) % 3 == 0
    recipe = audit_recipe("mlp", 2, 160, 6, 0)
    return images, labels, held, recipe, judged_fold(images, labels, held, 2, recipe)


def test_what_is_held_out_is_judged_and_nothing_else(judged):
    _, _, held, _, found = judged
    assert found.probabilities.shape == (held.sum(), 2)
    assert len(found.features) == held.sum()
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
    assert found.accuracy > 0.7


def test_another_label_of_a_held_out_example_changes_nothing(judged):
    images, labels, held, recipe, found = judged
    changed = labels.copy()
    changed[held] = 1 - changed[held]
    again = judged_fold(images, changed, held, 2, recipe)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)
    assert again.accuracy == pytest.approx(1 - found.accuracy)


def test_aum_is_of_what_was_trained_on_and_highest_where_the_label_is_wrong(judged):
    images, labels, held, recipe, found = judged
    assert np.isnan(found.aum[held]).all()
    watched = np.isfinite(found.aum)
    assert 0.85 <= watched[~held].mean() <= 0.95, "one in ten chooses the epoch and is not seen"
    wrong = np.flatnonzero(watched)[:4]
    changed = labels.copy()
    changed[wrong] = 1 - changed[wrong]
    again = judged_fold(images, changed, held, 2, recipe)
    assert np.nanmedian(again.aum[wrong]) > np.nanquantile(again.aum, 0.95)


def test_trained_on_a_part_the_rest_changes_nothing(judged):
    images, labels, held, recipe, _ = judged
    part = ~held & (np.arange(len(held)) % 2 == 0)
    changed = labels.copy()
    changed[~part] = 1 - changed[~part]
    one, other = (
        judged_fold(images, of, held, 2, recipe, part).probabilities for of in (labels, changed)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("number", "batch_size", "steps"), [(100, 32, 400), (3000, 32, 1000), (50_000, 64, 9000)]
)
def test_no_training_has_fewer_than_400_steps(number, batch_size, steps):
    recipe = audit_recipe("cnn", 12, number, 32, 7)
    assert recipe.batch_size == batch_size
    assert recipe.epochs * (number // batch_size) >= steps
    assert recipe.patience >= recipe.epochs
    assert (recipe.seed, recipe.augment_pixels) == (7, 2)


def test_features_are_the_last_linear_layers_input():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    images = torch.rand(7, 1, 6, 6)
    features, logits = FeatureTap(network).with_logits(images)
    torch.testing.assert_close(features, network[:3](images))
    torch.testing.assert_close(logits, network(images))


def test_a_network_without_a_linear_layer_has_its_logits_as_features():
    network = nn.Sequential(nn.Conv2d(1, 3, 6), nn.Flatten()).eval()
    with pytest.raises(ConfigError, match="a network without one"):
        FeatureTap(network)
    pixels = torch.from_numpy(bars(9)[0])
    features, logits = outputs(network, Normalize((0.5,), (0.5,)), pixels, torch.arange(2, 9))
    torch.testing.assert_close(features, logits)
    assert features.shape == (7, 3)


def test_large_images_are_shown_to_a_cpu_few_at_once_and_nothing_that_is_said_of_them_changes():
    cpu, sizes = torch.device("cpu"), []
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 9, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(network, nn.Linear(4, 3)).eval()
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    pixels = torch.randint(0, 256, (7, 1, 512, 400), dtype=torch.uint8)
    normalize = Normalize((0.5,), (0.5,))
    features, logits = outputs(network, normalize, pixels, torch.arange(7))
    assert sizes == [2, 2, 2, 1]
    with torch.no_grad():
        one_by_one = torch.cat([network(normalize(one[None])) for one in pixels])
        entered = torch.cat([network[0](normalize(one[None])) for one in pixels])
    torch.testing.assert_close(logits, one_by_one)
    torch.testing.assert_close(features, entered)
    assert [pass_size((side, side), cpu) for side in (28, 160, 4000)] == [256, 20, 1]
    assert pass_size((4000, 4000), torch.device("cuda")) == 256


def test_a_last_layer_that_is_called_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, images):
            return self.layer(self.layer(images))

    with pytest.raises(ConfigError, match="2 calls for 3 examples"):
        FeatureTap(Twice()).of(torch.rand(3, 4))


def test_an_audit_takes_the_gpu_there_is_and_refuses_the_one_there_is_not(monkeypatch):
    for there, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_here("auto").type == expected
        assert device_here("cpu").type == "cpu"
    assert device_here("cuda").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="needs a GPU where the command runs, got none"):
        device_here("cuda")


def test_what_a_network_says_is_asked_where_the_network_is():
    """Images come to its device, and what is said of them back, once for all of them."""
    skip_on_older_torch()
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
        images = torch.zeros(5, 1, 6, 6, dtype=torch.uint8)
        features, logits = outputs(network, Normalize((0.5,), (0.5,)), images, torch.arange(5))
    assert (features.device.type, logits.device.type) == ("cpu", "cpu")
    assert (features.shape, logits.shape) == ((5, 36), (5, 2))
