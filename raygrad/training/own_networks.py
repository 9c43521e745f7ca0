"""The user's own code by name: ``module:callable``, importable from the current folder too.

A network's callable takes a `raygrad.training.models.ImageSpec`, which says what images and how
many classes there are, or nothing, and returns a `torch.nn.Module` that maps images
``[B, C, H, W]`` to logits ``[B, num_classes]``::

    def my_network(spec):
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.height * spec.width, spec.num_classes))
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.training.networks import ImageSpec
from raygrad.training.own_code import first_line, imported

SIGNATURE = "def {name}(spec) -> torch.nn.Module"
_FIELDS = "spec has channels, height, width and num_classes; a callable without arguments will do"


def own_network(name: str) -> Callable[[ImageSpec], nn.Module]:
    """Returns what builds the user's own network for given images and classes.

    Raises:
        ConfigError: The name cannot be imported, or is no callable of an `ImageSpec` or nothing.
    """
    builder = imported(name, "network")
    takes_spec = _takes_spec(name, builder)

    def build(spec: ImageSpec) -> nn.Module:
        try:
            network = builder(spec) if takes_spec else builder()
        except Exception as error:
            raise _contract(name, f"{type(error).__name__}: {first_line(error)}") from error
        if not isinstance(network, nn.Module):
            raise _contract(name, f"a {type(network).__name__} back")
        return network

    return build


def outputs_of(name: str, network: nn.Module, images: Tensor) -> Any:
    """Returns what the user's own network makes of images.

    Raises:
        ConfigError: It cannot take them, whatever it raises.
    """
    try:
        return network(images)
    except Exception as error:
        shape = "x".join(map(str, images.shape[1:]))
        raise ConfigError(
            f"network {name!r} must take images {shape}, got "
            f"{type(error).__name__}: {first_line(error)}. Build it from spec: {_FIELDS}."
        ) from error


def _takes_spec(name: str, builder: Any) -> bool:
    """Tells whether a callable is given the spec: where it must, or says that it wants one."""
    if isinstance(builder, nn.Module) or not callable(builder):
        raise _contract(name, f"a {type(builder).__name__}, which builds none")
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError):  # of a builtin, which does not say
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    by_name = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(needed) > 1 or by_name:
        wanted = ", ".join([*(p.name for p in needed), *by_name])
        raise _contract(name, f"one that needs {wanted}")
    if needed:
        return True
    first = next(iter(positional), None)
    return first is not None and (
        first.name == "spec" or first.annotation in (ImageSpec, ImageSpec.__name__)
    )


def _contract(name: str, got: str) -> ConfigError:
    signature = SIGNATURE.format(name=name.rpartition(":")[2].rpartition(".")[2])
    return ConfigError(
        f"network {name!r} must be a callable that takes an ImageSpec, or nothing, and returns a "
        f"torch.nn.Module, got {got}. Write {signature!r}: {_FIELDS}."
    )
