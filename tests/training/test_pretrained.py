"""Published weights are those of the library's cache, and what cannot be had is said by name."""

from dataclasses import replace

import pytest
import torch
import torchvision

from raygrad.errors import ConfigError
from raygrad.training.features import FeatureTap
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource, weights_digest
from raygrad.training.pretrained import PRETRAINED, pretrained_network, published

SMALL = "squeezenet1_1"


def own():
    """A network of one's own."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Weights of a small network in torch's cache, where torchvision looks for them first."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(5)
    network = torchvision.models.get_model(SMALL, weights=None).eval()
    url = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    place = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]
    place.parent.mkdir(parents=True)
    torch.save(network.state_dict(), place)
    return network


def test_weights_that_are_at_hand_are_taken_and_no_others(cached):
    source = NetworkSource(SMALL, ImageSpec(3, 64, 64, 1000), PRETRAINED)
    assert weights_digest(source.build()) == weights_digest(cached)
    assert not source.build().training


def test_what_is_published_says_how_images_are_shown():
    known = published(SMALL)
    assert (known.num_classes, known.image_size) == (1000, 224)
    assert known.mean == (0.485, 0.456, 0.406)
    assert known.name == "SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_weights_of_timm_are_loaded_as_timm_loads_them(monkeypatch):
    timm = pytest.importorskip("timm")
    network = timm.create_model("lcnet_050")
    loads = "load_state_dict_from_hf"
    monkeypatch.setattr(f"timm.models._builder.{loads}", lambda *_, **__: network.state_dict())
    known = published("timm/lcnet_050")
    found = pretrained_network("timm/lcnet_050", ImageSpec(3, 96, 96, known.num_classes))
    assert weights_digest(found) == weights_digest(network)


def test_weights_that_end_before_a_last_layer_get_the_same_new_one_each_time(monkeypatch):
    timm = pytest.importorskip("timm")
    name, spec = "timm/test_vit", ImageSpec(3, 160, 160, 4)
    network = timm.create_model("test_vit", num_classes=0)
    cfg = replace(timm.get_pretrained_cfg("test_vit"), num_classes=0)
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda _: cfg)
    monkeypatch.setattr("timm.models._builder.resolve_pretrained_cfg", lambda *_, **__: cfg)
    loads = "load_state_dict_from_hf"
    monkeypatch.setattr(f"timm.models._builder.{loads}", lambda *_, **__: network.state_dict())
    assert published(name).num_classes is None
    found = pretrained_network(name, spec)
    assert weights_digest(found) == weights_digest(pretrained_network(name, spec))
    images = torch.rand(2, 3, 160, 160)
    features, logits = FeatureTap(found.eval()).with_logits(images)
    torch.testing.assert_close(features, network.eval()(images))
    assert logits.shape == (2, 4)


@pytest.mark.parametrize("name", ["cnn5", "tests.training.test_pretrained:own"])
def test_a_network_that_nobody_publishes_weights_of_is_refused(name):
    with pytest.raises(ConfigError, match=r"must be torchvision's or timm's.*--checkpoint FILE"):
        published(name)


def test_weights_that_cannot_be_had_are_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def away(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", away)
    with pytest.raises(ConfigError, match=r"got no route to host.*--checkpoint FILE"):
        pretrained_network(SMALL, ImageSpec(3, 64, 64, 1000))


def test_weights_for_other_images_or_classes_are_refused():
    with pytest.raises(ConfigError, match="3 channels and tell apart 1000 classes, got 1 and 10"):
        pretrained_network(SMALL, ImageSpec(1, 64, 64, 10))
