"""Networks by name: the paper's, torchvision's, timm's, or your own."""

import difflib
import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.training.networks import NETWORKS, ImageSpec
from raygrad.training.own_networks import outputs_of, own_network

__all__ = [
    "TIMM_PREFIX",
    "ImageSpec",
    "build_network",
    "check_network",
    "library_networks",
    "library_parameters",
    "num_parameters",
    "timm_networks",
]

Builder = Callable[[ImageSpec], nn.Module]

TIMM_PREFIX = "timm/"
"""Begins the names of timm's networks."""


def library_networks() -> list[str]:
    """Returns the names of torchvision's classifiers."""
    models = _torchvision()
    return models.list_models(module=models)


def check_network(name: str) -> None:
    """Raises ConfigError unless `name` can be looked up; see `build_network`."""
    _builder(name)


def build_network(name: str, spec: ImageSpec, seed: int) -> nn.Module:
    """Returns a freshly initialised network; the same seed gives the same weights.

    Args:
        name: A key of `NETWORKS`; a classifier of torchvision's by its name there; one of timm's
            as `timm/NAME` (or by its name alone where torchvision has none of that name); or
            your own as `module:callable`, see `raygrad.training.own_networks`.
        spec: What the network must accept and tell apart. The first convolution of a library's
            network is replaced where the images have not 3 channels.
        seed: Seeds the initial weights; torch's global random state is left as it was.

    Raises:
        ConfigError: The name is unknown, the network cannot take such images, or it does not map
            images to class logits.
    """
    builder = _builder(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = builder(spec)
            _check_logits(name, network, spec)
        except ConfigError:
            raise
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
            raise ConfigError(
                f"network {name!r} must take images {spec.channels}x{spec.height}x{spec.width}, "
                f"got {str(error).splitlines()[0]!r}. Choose another network or image size."
            ) from error
    return network


def num_parameters(network: nn.Module) -> int:
    """Returns how many numbers the network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def library_parameters(name: str) -> int:
    """Returns the published parameter count of a torchvision classifier (3 channels, ImageNet)."""
    return int(_torchvision().get_model_weights(name).DEFAULT.meta["num_params"])


def timm_networks() -> list[str]:
    """Returns the names of timm's classifiers, none where timm is not installed."""
    timm = _timm()
    return [] if timm is None else timm.list_models()


def _builder(name: str) -> Builder:
    if ":" in name:
        return own_network(name)
    if name in NETWORKS:
        return NETWORKS[name]
    if name in library_networks():
        return lambda spec: _from_torchvision(name, spec)
    timm = _timm()
    short = name.removeprefix(TIMM_PREFIX)
    if timm is not None and timm.is_model(short):
        return lambda spec: _from_timm(timm, short, spec)
    if name.startswith(TIMM_PREFIX) and timm is None:
        raise ConfigError(
            f"network {name!r} must come from timm, got no such package. Install timm."
        )
    nearest = difflib.get_close_matches(name, [*NETWORKS, *library_networks(), *timm_networks()], 1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(
        f"network must be one of {', '.join(NETWORKS)}, a classifier of torchvision's or timm's, "
        f"or your own as module:callable, got {name!r}.{hint} `raygrad models` lists them."
    )


def _torchvision() -> ModuleType:
    # It takes seconds, as it brings the compiler with it: the paper's networks do without.
    return importlib.import_module("torchvision.models")


def _timm() -> ModuleType | None:
    try:
        return importlib.import_module("timm")
    except ImportError:
        return None


def _from_torchvision(name: str, spec: ImageSpec) -> nn.Module:
    builder = _torchvision().get_model_builder(name)
    options: dict[str, object] = {}
    if "vit" in name.split("_"):
        options["image_size"] = _side(spec)
    if name.startswith("maxvit"):
        options["input_size"] = (spec.height, spec.width)
    if name in ("googlenet", "inception_v3"):
        # In training mode the auxiliary heads would return tuples; the study trains on logits.
        options["aux_logits"] = False
        options["init_weights"] = True
    network = builder(weights=None, num_classes=spec.num_classes, **options)
    if spec.channels != 3:
        _replace_first_convolution(network, spec.channels)
    return network


def _from_timm(timm: ModuleType, name: str, spec: ImageSpec) -> nn.Module:
    options = {"num_classes": spec.num_classes, "in_chans": spec.channels}
    try:
        return timm.create_model(name, img_size=(spec.height, spec.width), **options)
    except TypeError:
        # Convolutional networks of timm take any size and no such option.
        return timm.create_model(name, **options)


def _side(spec: ImageSpec) -> int:
    if spec.height != spec.width:
        raise ValueError(f"square images only, not {spec.height}x{spec.width}")
    return spec.height


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            parent = network.get_submodule(name.rpartition(".")[0])
            replacement = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]  # as Conv2d keeps them
                module.stride,  # type: ignore[arg-type]  # as Conv2d keeps them
                module.padding,  # type: ignore[arg-type]  # as Conv2d keeps them
                bias=module.bias is not None,
            )
            setattr(parent, name.rpartition(".")[2], replacement)
            return


def _check_logits(name: str, network: nn.Module, spec: ImageSpec) -> None:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        images = torch.zeros(2, spec.channels, spec.height, spec.width)
        logits: Tensor = outputs_of(name, network, images) if ":" in name else network(images)
    network.train(was_training)
    if not isinstance(logits, Tensor):
        raise ConfigError(
            f"network {name!r} must return logits [2, {spec.num_classes}] for 2 images, got a "
            f"{type(logits).__name__}. Wrap it in a module whose forward returns the logits."
        )
    if tuple(logits.shape) != (2, spec.num_classes):
        raise ConfigError(
            f"network {name!r} must return logits [2, {spec.num_classes}] for 2 images, "
            f"got {list(logits.shape)}. Give it num_classes={spec.num_classes}."
        )
