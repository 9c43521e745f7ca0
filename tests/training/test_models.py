"""Networks by name: the paper's, torchvision's, timm's and one's own, for any images."""

import pytest
import torch

from raygrad.errors import ConfigError
from raygrad.training.models import (
    ImageSpec,
    build_network,
    library_networks,
    library_parameters,
    num_parameters,
)
from raygrad.training.networks import NETWORKS

SPECS = [ImageSpec(1, 32, 32, 7), ImageSpec(3, 48, 32, 5)]


def two_channels_only(spec):
    """A user's own network that is wrong on purpose."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_papers_networks_adapt_to_channels_size_and_classes(name, spec):
    network = build_network(name, spec, seed=0).eval()
    logits = network(torch.rand(3, spec.channels, spec.height, spec.width))
    assert logits.shape == (3, spec.num_classes)
    assert logits.isfinite().all()


def test_the_papers_networks_have_the_sizes_that_are_documented():
    mnist, cifar = ImageSpec(1, 28, 28, 10), ImageSpec(3, 32, 32, 10)
    sizes = {"linear": 7850, "cnn": 421642}
    assert {n: num_parameters(build_network(n, mnist, 0)) for n in sizes} == sizes
    convolutions = [m for m in build_network("vgg16_32", cifar, 0) if hasattr(m, "stride")]
    assert sum(type(m) is torch.nn.Conv2d for m in convolutions) == 13
    layers = [m for m in build_network("cnn5", cifar, 0) if list(m.parameters())]
    assert len(layers) == 5


@pytest.mark.parametrize(("name", "convolutions"), [("small_vgg16", 13), ("small_alexnet", 5)])
def test_small_twins_have_a_quarter_of_the_channels_and_take_images_of_any_size(name, convolutions):
    network = build_network(name, ImageSpec(3, 96, 96, 10), seed=0).eval()
    found = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(found) == convolutions
    assert {m.out_channels for m in found} == {
        "small_vgg16": {16, 32, 64, 128},
        "small_alexnet": {16, 48, 96, 64},
    }[name]
    for side in (16, 40, 96):
        assert network(torch.rand(2, 3, side, side + 8)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1", "mobilenet_v3_small"])
def test_a_torchvision_classifier_takes_any_channels_and_classes_also_in_training(name):
    network = build_network(name, SPECS[0], seed=0).train()
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 7)


def test_a_vision_transformer_is_built_for_the_size_of_the_images():
    network = build_network("vit_b_32", ImageSpec(3, 64, 64, 4), seed=0).eval()
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 4)


def test_the_published_parameter_counts_are_those_of_the_networks_that_are_built():
    spec = ImageSpec(3, 224, 224, 1000)
    for name in ("alexnet", "resnet18"):
        assert library_parameters(name) == num_parameters(build_network(name, spec, 0))
    assert len(library_networks()) > 70


def test_timm_is_looked_up_by_its_prefix_and_where_torchvision_has_no_such_name():
    pytest.importorskip("timm")
    for name in ("timm/resnet18", "tf_mobilenetv3_small_minimal_100"):
        spec = ImageSpec(1, 64, 64, 6)
        assert build_network(name, spec, 0).eval()(torch.rand(2, 1, 64, 64)).shape == (2, 6)


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_random_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two = (build_network("resnet18", SPECS[0], seed=3) for _ in range(2))
    assert torch.rand(1) == expected
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = build_network("resnet18", SPECS[0], seed=4)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("resnet19", SPECS[0], r"Did you mean 'resnet1\w+'\? `raygrad models` lists them"),
        ("timm/nothing", SPECS[0], "raygrad models"),
        ("alexnet", SPECS[0], "'alexnet' must take images 1x32x32, got"),
        ("vgg16_32", ImageSpec(1, 28, 28, 10), "'vgg16_32' must take images 1x28x28, got"),
        ("vit_b_16", ImageSpec(3, 48, 32, 5), "square images only"),
        (f"{__name__}:two_channels_only", ImageSpec(2, 2, 2, 4), r"logits \[2, 4\]"),
        ("raygrad.nothing:here", SPECS[0], "importable module:callable"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(name, spec, said):
    with pytest.raises(ConfigError, match=said):
        build_network(name, spec, seed=0)
