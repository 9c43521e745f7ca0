"""What a trained network is on disk: weights, and all that is needed to use them."""

import copy
import hashlib
import io
import pickle
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.training.losses import DEFAULT_LOSS
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.preprocess import Normalize

_NO_TENSORS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, struct.error,
    TypeError, AttributeError, OverflowError,
)  # fmt: skip
"""What torch meets, and does not name, in a file that is cut or none of its own."""
_NO_MEMORY = ("alloc_cpu", "allocate memory")
"""What torch says where there is no memory for a tensor, by an error of no kind of its own."""


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights with the network's name, its input and its preprocessing."""

    network: str
    """The network's name, as `build_network` takes it."""
    spec: ImageSpec
    """The images and classes that it was built for."""
    normalize: Normalize
    """The preprocessing that it was trained with."""
    weights: dict[str, Tensor]
    """Its state dict, on the CPU."""
    loss: str = DEFAULT_LOSS
    """The loss that it was trained with, as `build_loss` takes it."""
    computed_by: dict[str, str] = field(default_factory=dict)
    """Numerics, the device's name and torch's version, where they are known."""

    def build(self) -> nn.Module:
        """Returns the network with these weights, in evaluation mode.

        Raises:
            ConfigError: The weights belong to another network.
        """
        network = build_network(self.network, self.spec, seed=0)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ConfigError(
                f"checkpoint must hold the weights of {self.network!r}, got {error}"
            ) from error
        return network.eval()

    def digest(self) -> str:
        """Returns a hash of weights, network and preprocessing; the provenance of scores."""
        made_of: tuple[object, ...] = (self.network, self.spec, self.normalize)
        # Files of before losses had names are of cross-entropy, and keep their digest.
        made_of += (self.loss,) if self.loss != DEFAULT_LOSS else ()
        sha = hashlib.sha256(repr(made_of).encode())
        for name, tensor in sorted(self.weights.items()):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()[:32]


def save_checkpoint(url: str, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint, whole or not at all."""
    values = {
        "network": checkpoint.network,
        "spec": asdict(checkpoint.spec),
        "normalize": asdict(checkpoint.normalize),
        "weights": checkpoint.weights,
        "loss": checkpoint.loss,
        "computed_by": checkpoint.computed_by,
    }
    files.write_bytes(url, to_bytes(values))


def load_checkpoint(url: str) -> Checkpoint:
    """Reads what `save_checkpoint` wrote; nothing in the file is ever executed.

    Raises:
        ConfigError: There is no such file, or it is not a checkpoint of raygrad's.
    """
    if not files.exists(url):
        raise ConfigError(f"checkpoint must exist, got {url!r}. Train first: raygrad train.")
    try:
        values = from_bytes(files.read_bytes(url))
    except ValueError as error:
        raise ConfigError(
            f"checkpoint must be whole, got {error}, in {url!r}. Train again: raygrad train --redo."
        ) from error
    try:
        return Checkpoint(
            values["network"],
            ImageSpec(**values["spec"]),
            Normalize(**values["normalize"]),
            values["weights"],
            values.get("loss", DEFAULT_LOSS),
            values.get("computed_by", {}),
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"checkpoint must be raygrad's own, got {url!r} ({error!r}).") from error


def on_cpu(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of nested values, all tensors on the CPU: a GPU may have no room for it."""
    copied: dict[str, Any] = _copied(values)
    return copied


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        made = copy.copy(value)  # of the same type, with what torch notes at a state dict
        for name, held in value.items():
            made[name] = _copied(held)
        return made
    if isinstance(value, list | tuple):
        return type(value)(_copied(held) for held in value)
    return copy.deepcopy(value)


def to_bytes(values: dict[str, Any]) -> bytes:
    """Returns tensors and plain values as bytes."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """Returns what `to_bytes` was given; only tensors and plain values are accepted.

    Raises:
        ValueError: The bytes are cut, or something else; its text is what was found, on one line.
        RuntimeError: There is no memory for a tensor.
    """
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except _NO_TENSORS as error:
        if isinstance(error, RuntimeError) and any(one in str(error) for one in _NO_MEMORY):
            raise  # of the machine, not of the file
        reason = (str(error).splitlines() or ["nothing that can be read"])[0][:200]
        if "Weights only load failed" in reason:  # the rest is advice to load it all the same
            reason = "a pickle of other objects, such as a whole model"
        if isinstance(error, KeyError | IndexError | struct.error | TypeError | AttributeError):
            reason = "a file of another kind"  # the numbers of a pickle that is none
        raise ValueError(reason.split(". ")[0].rstrip(".")) from error  # what follows is a guess
