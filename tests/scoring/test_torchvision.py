"""Whole networks, the paper's and torchvision's, against the float64 single-example loop."""

import pytest
import torch
import torchvision
from torch import nn

from raygrad.scoring import GRAD_COLUMNS, GradNormScorer
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import assert_exact, relative_error


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def mnist_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(inplace=True), nn.Linear(128, 10),
    )  # fmt: skip


def five_layer_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(1024, 384), nn.ReLU(inplace=True), nn.Linear(384, 192),
        nn.ReLU(inplace=True), nn.Linear(192, 10),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "shape", "last"),
    [
        (linear, (3, 32, 32), "1"),
        (mnist_cnn, (1, 28, 28), "9"),
        (five_layer_cnn, (3, 32, 32), "11"),
    ],
)
def test_the_papers_small_networks_are_exact(build, shape, last):
    torch.manual_seed(0)
    assert_exact(build().eval(), torch.randn(4, *shape), classes=10, last_layer=last)


NETWORKS = {
    "alexnet": ("classifier.6", 64),
    "vgg16": ("classifier.6", 32),
    "vgg16_bn": ("classifier.6", 32),
    "resnet18": ("fc", 64),
    "resnet50": ("fc", 64),
    "mobilenet_v3_small": ("classifier.3", 64),
    "efficientnet_b0": ("classifier.1", 64),
    "convnext_tiny": ("classifier.2", 64),
    "vit_b_16": ("heads.head", 32),
    "swin_t": ("head", 64),
    "densenet121": ("classifier", 64),
    "googlenet": ("fc", 64),
    "regnet_y_400mf": ("fc", 64),
}


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("resnet18", "mobilenet_v3_small")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in NETWORKS
    ],
)
def test_torchvision_networks_are_as_exact_as_the_float32_loop(name):
    """No formula may fall back, and the error is at most 3 times that of the float32 loop."""
    torch.manual_seed(0)
    last, size = NETWORKS[name]
    options = {"image_size": size} if name == "vit_b_16" else {}
    options |= {"init_weights": True} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(num_classes=10, **options).eval()
    randomise_statistics(model)
    images, labels = torch.randn(2, 3, size, size), torch.tensor([3, 7])
    exact = loop_grad_norms(model, images, labels, last_layer=last)
    single = loop_grad_norms(model, images, labels, last_layer=last, dtype=None)
    scorer = GradNormScorer(model, GRAD_COLUMNS)
    found = scorer.score(images, labels).norms
    assert "fallback" not in scorer.explain(images)
    limit = max(3 * relative_error(single, exact), 1e-5)
    assert relative_error(found, exact) <= limit


def randomise_statistics(model: nn.Module) -> None:
    """Gives normalisation layers the look of trained ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
