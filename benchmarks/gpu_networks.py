"""The networks that `gpu.py` measures, their sizes, and how precision is set."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from raygrad.scoring.numerics import autocast, numerics
from raygrad.training.networks import NETWORKS, ImageSpec


@dataclass(frozen=True)
class Case:
    """One network: how it is made, what it takes, and batch sizes on a GPU and in a quick run."""

    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    batch: int
    quick_shape: tuple[int, int, int]
    """The smallest images that the network takes as it is."""

    def model(self, device: torch.device) -> nn.Module:
        """Returns the network with fresh weights, in eval mode."""
        torch.manual_seed(0)
        return self.make().eval().to(device)

    def batch_of(self, size: int, device: torch.device, quick: bool) -> tuple[Tensor, Tensor]:
        """Returns random images ``[B, C, H, W]`` and labels ``[B]``; no rate depends on them."""
        generator = torch.Generator().manual_seed(1)
        shape = self.quick_shape if quick else self.shape
        images = torch.randn(size, *shape, generator=generator)
        labels = torch.randint(0, 10, (size,), generator=generator)
        return images.to(device), labels.to(device)


def own(name: str, channels: int, side: int) -> Callable[[], nn.Module]:
    """Returns the maker of one of the paper's networks for ten classes."""
    return lambda: NETWORKS[name](ImageSpec(channels, side, side, 10))


def vit(depth: int, width: int, heads: int) -> Callable[[], nn.Module]:
    """Returns the maker of a vision transformer with patches of 16 pixels."""
    return lambda: torchvision.models.VisionTransformer(224, 16, depth, heads, width, 4 * width)


FULL, SMALL = (3, 224, 224), (3, 32, 32)
CASES = {
    "cnn": Case(own("cnn", 1, 28), (1, 28, 28), 1024, (1, 28, 28)),
    "cnn5": Case(own("cnn5", 3, 32), (3, 32, 32), 512, (3, 32, 32)),
    "vgg16_32": Case(own("vgg16_32", 3, 32), (3, 32, 32), 512, (3, 32, 32)),
    "airbench94": Case(own("airbench94", 3, 32), (3, 32, 32), 512, (3, 16, 16)),
    "resnet18": Case(torchvision.models.resnet18, FULL, 256, SMALL),
    "resnet50": Case(torchvision.models.resnet50, FULL, 128, SMALL),
    "vgg16": Case(torchvision.models.vgg16, FULL, 64, FULL),
    "vit_s_16": Case(vit(12, 384, 6), FULL, 128, FULL),
    "vit_b_16": Case(vit(12, 768, 12), FULL, 64, FULL),
    "convnext_t": Case(torchvision.models.convnext_tiny, FULL, 64, SMALL),
    "densenet121": Case(torchvision.models.densenet121, FULL, 64, SMALL),
}
EXACT = (
    "cnn", "cnn5", "vgg16_32", "airbench94", "resnet18", "resnet50", "vgg16", "vit_s_16",
    "convnext_t",
)  # fmt: skip
"""Those whose norms are compared with float64."""
QUICK = ("cnn", "cnn5")


@contextlib.contextmanager
def computing(name: str, device: torch.device) -> Iterator[None]:
    """Computes as one of raygrad's numerics says, autocast included."""
    with numerics(name, device), autocast(name, device):
        yield
