"""Networks that were trained elsewhere: plain weights, loaded safely and checked against the name.

A file of weights is a `state_dict` saved by torch, alone or under the key `state_dict`, `model`
or `model_state_dict`; or a `.safetensors` file; or raygrad's own checkpoint. Nothing in it is
executed.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.training.checkpoints import from_bytes
from raygrad.training.losses import DEFAULT_LOSS
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.pretrained import PRETRAINED, pretrained_network

_HOLDERS = ("weights", "state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
_UNUSED = ("aux1.", "aux2.", "AuxLogits.")
"""Heads of GoogLeNet and Inception that only training uses."""
_MAX_NAMED = 4


@dataclass(frozen=True)
class NetworkSource:
    """Where a network and its weights come from; small, so that it travels instead of weights."""

    network: str
    """The network's name, as `build_network` takes it."""
    spec: ImageSpec
    """The images and classes that it is built for."""
    checkpoint_url: str | None = None
    """The file of weights, or `PRETRAINED` for those that its library publishes; without one the
    weights are fresh, drawn from `seed`."""
    seed: int = 0
    """Seeds fresh weights."""

    def build(self) -> nn.Module:
        """Returns the network with its weights, on the CPU and in evaluation mode.

        Raises:
            ConfigError: The name is unknown, the network's logits do not count the classes, the
                file does not hold this network's weights, or the published ones cannot be had.
        """
        if self.checkpoint_url == PRETRAINED:
            return pretrained_network(self.network, self.spec).eval()
        network = build_network(self.network, self.spec, seed=self.seed)
        if self.checkpoint_url is not None:
            load_weights(network, read_weights(self.checkpoint_url), self)
        return network.eval()


def weights_digest(network: nn.Module) -> str:
    """Returns a hash of every parameter and buffer with its name; the provenance of scores."""
    sha = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        sha.update(flat.view(torch.uint8).numpy())
    return sha.hexdigest()[:32]


def read_weights(url: str) -> dict[str, Tensor]:
    """Returns the tensors of a file of weights by name; nothing in the file is executed.

    Raises:
        ConfigError: There is no such file, or it is no file of weights.
    """
    if not files.exists(url):
        raise ConfigError(f"checkpoint must exist, got {url!r}. Check the path.")
    data = files.read_bytes(url)
    values = _safetensors(data, url) if url.endswith(".safetensors") else _pickled(data, url)
    for holder in _HOLDERS:
        if isinstance(values, Mapping) and isinstance(values.get(holder), Mapping):
            values = values[holder]
            break
    if not isinstance(values, Mapping) or not values or not _are_tensors(values):
        raise ConfigError(
            f"checkpoint must hold a state_dict, names with tensors, got {_kind(values)}, "
            f"in {url}. Save model.state_dict()."
        )
    return dict(values)


def recorded_loss(url: str) -> str | None:
    """Returns the loss that a checkpoint of raygrad's says it was trained with; None in others.

    Args:
        url: A file that `read_weights` takes.
    """
    if url.endswith(".safetensors"):
        return None
    values = _pickled(files.read_bytes(url), url)
    if not isinstance(values, Mapping) or "spec" not in values or "normalize" not in values:
        return None
    return str(values.get("loss", DEFAULT_LOSS))


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: NetworkSource) -> None:
    """Loads weights into a network after comparing every name and shape.

    Names that all begin with a wrapper's prefix (`module.`, `_orig_mod.`, ...) lose it.

    Raises:
        ConfigError: Names are missing, unexpected or of another shape; the text lists them.
    """
    expected = network.state_dict()
    weights = _unwrapped(weights, expected)
    # Counters of batch normalisation that nothing in evaluation mode reads; old files lack them.
    missing = [
        name
        for name in expected
        if name not in weights and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in weights if name not in expected and not name.startswith(_UNUSED)]
    misshapen = [
        f"{name} {list(weights[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise ConfigError(
            f"checkpoint must fit network {source.network!r} with {source.spec.num_classes} "
            f"classes and images of {source.spec.height} pixels, got {', '.join(problems)}, in "
            f"{source.checkpoint_url}. Give the --network, --num-classes and --image-size that it "
            "was trained with."
        )
    network.load_state_dict(dict(weights), strict=False)


def _unwrapped(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPERS:
            if all(name.startswith(prefix) for name in weights) and not any(
                name.startswith(prefix) for name in expected
            ):
                weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
                stripped = True
    return weights


def _safetensors(data: bytes, url: str) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise ConfigError(
            f"reading .safetensors must have its library, got none for {url}. "
            "Do: pip install safetensors."
        ) from error
    try:
        return load(data)
    except SafetensorError as error:
        raise ConfigError(
            f"checkpoint must be a whole safetensors file, got {error}, in {url}."
        ) from error


def _pickled(data: bytes, url: str) -> Any:
    try:
        return from_bytes(data)
    except ValueError as error:
        raise ConfigError(
            f"checkpoint must be a file of tensors and plain values, got {error}, in {url}. "
            "Save model.state_dict() with torch.save, not the model itself."
        ) from error


def _are_tensors(values: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in values.items())


def _kind(values: Any) -> str:
    if isinstance(values, Mapping):
        return f"the keys {_some([str(key) for key in values])}" if values else "nothing"
    return type(values).__name__


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
