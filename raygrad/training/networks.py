"""The paper's networks and a fast one, each adapted to a data set's channels, size and classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ImageSpec:
    """What a network must accept and tell apart."""

    channels: int
    """Colour channels, 1 or 3."""
    height: int
    """Rows of pixels."""
    width: int
    """Columns of pixels."""
    num_classes: int
    """Classes that the labels count."""


def linear(spec: ImageSpec) -> nn.Module:
    """Multinomial logistic regression on the pixels."""
    pixels = spec.channels * spec.height * spec.width
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, spec.num_classes))


def mlp(spec: ImageSpec) -> nn.Module:
    """Two hidden layers of 256 units with ReLU."""
    pixels = spec.channels * spec.height * spec.width
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, spec.num_classes),
    )


def cnn(spec: ImageSpec) -> nn.Module:
    """Two convolutions and two fully connected layers: the paper's network for MNIST.

    Each 3x3 convolution (32, then 64 channels) is followed by ReLU and 2x2 max-pooling; images
    below 16 pixels are pooled after the second one only. So 28 pixels become 7, and 8 become 4.
    """
    pools_twice = min(spec.height, spec.width) >= 16
    shrink = 4 if pools_twice else 2
    features = 64 * (spec.height // shrink) * (spec.width // shrink)
    return nn.Sequential(
        nn.Conv2d(spec.channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2) if pools_twice else nn.Identity(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, spec.num_classes),
    )


def cnn5(spec: ImageSpec) -> nn.Module:
    """Three convolutions and two fully connected layers: the paper's 5-layer network for CIFAR.

    Each 3x3 convolution (32, 64, then 128 channels) is followed by ReLU and 2x2 max-pooling, so
    the image must have at least 8 pixels a side.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((spec.channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    features = 128 * (spec.height // 8) * (spec.width // 8)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(features, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, spec.num_classes),
    )


VGG16_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of VGG16's convolutions; 2x2 max-pooling stands between the blocks."""


def vgg16_32(spec: ImageSpec) -> nn.Module:
    """VGG16 adapted to 32 pixels: its 13 convolutions, then 512 units and the logits.

    The paper adapts VGG16 to CIFAR without saying how; this is the usual way: at 224 pixels VGG16
    ends in 7x7 features and two layers of 4,096 units, at 32 pixels one pixel of features is left.
    """
    return _small_vgg16(spec, batch_norm=False)


def vgg16_bn_32(spec: ImageSpec) -> nn.Module:
    """`vgg16_32` with batch normalisation after every convolution."""
    return _small_vgg16(spec, batch_norm=True)


def _small_vgg16(spec: ImageSpec, batch_norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    inputs = spec.channels
    for block in VGG16_CHANNELS:
        for outputs in block:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has a bias
            layers += [convolution, *([nn.BatchNorm2d(outputs)] if batch_norm else []), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    features = 512 * (spec.height // 32) * (spec.width // 32)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(features, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, spec.num_classes),
    )


SMALL_ALEXNET = ((16, 7, 2), (48, 5, 1), (96, 3, 1), (64, 3, 1), (64, 3, 1))
"""Channels, side and stride of the five convolutions; pooled after the first two and the last."""


def small_vgg16(spec: ImageSpec) -> nn.Module:
    """VGG16's 13 convolutions with a quarter of its channels, for small sets of photographs.

    Batch norm stands behind each, and the mean over what is left of the image before the logits:
    images of any size from 16 pixels on are taken.
    """
    layers: list[nn.Module] = []
    inputs = spec.channels
    for at, block in enumerate(VGG16_CHANNELS):
        layers += [nn.MaxPool2d(2)] if at else []
        for outputs in block:
            layers += _normed_convolution(inputs, outputs // 4)
            inputs = outputs // 4
    return _averaged(layers, inputs, spec.num_classes)


def small_alexnet(spec: ImageSpec) -> nn.Module:
    """AlexNet's 5 convolutions with a quarter of its channels, for small sets of photographs.

    Batch norm stands behind each, the first takes every second pixel, not every fourth, and the
    mean over what is left of the image stands before the logits: images of any size from 16 pixels
    on are taken.
    """
    layers: list[nn.Module] = []
    inputs = spec.channels
    for at, (outputs, side, stride) in enumerate(SMALL_ALEXNET):
        layers += _normed_convolution(inputs, outputs, side, stride)
        layers += [nn.MaxPool2d(2)] if at in (0, 1, 4) else []
        inputs = outputs
    return _averaged(layers, inputs, spec.num_classes)


def _normed_convolution(
    inputs: int, outputs: int, side: int = 3, stride: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _averaged(layers: list[nn.Module], inputs: int, num_classes: int) -> nn.Module:
    head = nn.Linear(inputs, num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class Whitening(nn.Conv2d):
    """A convolution whose filters whiten the training images; only its bias is learned.

    `raygrad.training.whitening` sets it from the images, once; `is_fitted` goes with the weights.
    """

    is_fitted: torch.Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__(channels, 2 * channels * side**2, side)
        self.weight.requires_grad_(False)
        self.register_buffer("is_fitted", torch.tensor(0))


AIRBENCH_CHANNELS = (64, 256, 256)
"""Output channels of the three groups of airbench94."""


def airbench94(spec: ImageSpec) -> nn.Module:
    """Six convolutions behind a whitening layer, made for CIFAR-10 and short training.

    After K. Jordan's network (2024, arXiv 2404.00498; github.com/KellerJordan/cifar10-airbench, MIT
    licence): each group pools after its first convolution, batch norm has no scale, filters begin
    as the identity. The maximum over what is left of the image stands before the logits, so that
    images of any size from 9 pixels on are taken. The division of the logits by 256 that stands
    there is in the weights of the last layer here, whose gradients are then those of a plain layer.
    """
    if min(spec.height, spec.width) < 9:
        raise ValueError("images have fewer than 9 pixels a side")
    first = Whitening(spec.channels, 2)
    layers: list[nn.Module] = [first, nn.GELU()]
    inputs = first.out_channels
    for outputs in AIRBENCH_CHANNELS:
        layers += [_identity_filters(inputs, outputs), nn.MaxPool2d(2), _unscaled_norm(outputs),
                   nn.GELU(), _identity_filters(outputs, outputs), _unscaled_norm(outputs),
                   nn.GELU()]  # fmt: skip
        inputs = outputs
    head = nn.Linear(inputs, spec.num_classes, bias=False)
    with torch.no_grad():
        head.weight /= head.weight.std() * inputs
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


def _identity_filters(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # The first filters pass their channel on; the others are random.
    nn.init.dirac_(convolution.weight.data[:inputs])
    return convolution


def _unscaled_norm(channels: int) -> nn.Module:
    # As published, where 0.6 of the running statistics are kept: few steps are all that there are.
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


NETWORKS: dict[str, Callable[[ImageSpec], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "cnn5": cnn5,
    "vgg16_32": vgg16_32,
    "vgg16_bn_32": vgg16_bn_32,
    "airbench94": airbench94,
    "small_vgg16": small_vgg16,
    "small_alexnet": small_alexnet,
}
"""Networks that adapt to the size of the images, by name."""
