"""What enters the last linear layer, and whether that layer makes the logits."""

import pytest
import torch
from torch import nn

from raygrad.errors import ConfigError
from raygrad.training.features import FeatureTap


class Scaled(nn.Module):
    """Goes on after its last linear layer."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return 2 * self.last(x.flatten(1))


def test_logits_come_with_the_features_where_the_layer_makes_them():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    images = torch.randn(6, 1, 2, 2)
    features, logits = FeatureTap(network).of_last_layer(images)
    torch.testing.assert_close(features, network[:3](images))
    torch.testing.assert_close(logits, network(images))


def test_a_network_that_goes_on_after_the_layer_has_features_alone():
    """The outer product of error and feature is no gradient of that layer's weights."""
    network, images = Scaled().eval(), torch.randn(6, 1, 2, 2)
    tap = FeatureTap(network)
    features, logits = tap.of_last_layer(images)
    torch.testing.assert_close(features, images.flatten(1))
    assert logits is None
    assert tap.of_last_layer(torch.zeros(2, 1, 2, 2))[1] is None, "zeros tell of nothing"


def test_a_layer_that_is_called_twice_is_refused():
    last = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="got 2 calls for 3 examples"):
        FeatureTap(nn.Sequential(last, last)).of_last_layer(torch.randn(3, 4))


def test_an_example_without_finite_logits_does_not_take_the_others_errors():
    """What the first batch says holds for all, and a shard without errors looks complete."""
    images = torch.randn(3, 1, 2, 2)
    images[0] = float("inf")
    tap = FeatureTap(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval())
    assert tap.of_last_layer(images)[1].isfinite().all(dim=1).tolist() == [False, True, True]
