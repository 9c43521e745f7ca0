"""Whose fault an error is that ends the scoring of a shard: the shard's, storage's, or of where.

An example's own fault never comes here: it is a row of the reject table.
"""

import errno
from collections.abc import Iterator
from typing import Literal

import torch

from raygrad.errors import (
    ConfigError,
    DataError,
    IncompleteError,
    ResourceError,
    StorageAwayError,
    StorageRefusedError,
)
from raygrad.scoring.out_of_memory import is_out_of_memory

Fault = Literal["data", "shard", "code", "storage", "device", "setup"]
"""data: the shard's own, on any node; shard: the shard's here, perhaps not elsewhere; code: the
shard's too, unless no shard fares better; storage: it does not answer, or refuses; device: the
GPU's or the node's; setup: of how the job is set up, where different nodes say the same."""

_DEVICE_SIGNS = (
    "cuda error",
    "cuda driver error",
    "cuda initialization",
    "cuda unknown error",
    "cudnn error",
    "cudnn_status_",
    "cublas_status_",
    "cusolver error",
    "cusparse error",
    "cufft error",
    "nvml error",
    "nvrtc error",
    "nvidia driver",
    "hip error",
    "no cuda gpus are available",
    "no cuda-capable device",
    "uncorrectable ecc",
    "device-side assert",
)
"""Parts of messages, in lower case: libraries below torch fail with words in a RuntimeError."""

_NETWORK = frozenset(
    (
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
    )
)
"""What a file system on a network says while its server is away."""


class OutputError(OSError):
    """The part could not be written, and no other part could be."""


def fault_of(error: BaseException, *, is_built: bool) -> Fault:
    """Returns whose fault an error is.

    Args:
        error: What ended the building of an actor, or the scoring of a shard.
        is_built: Whether the networks were built: whatever fails before is no shard's.
    """
    # What refuses a write stands behind the error that names the output.
    behind = error.__cause__ if isinstance(error, OutputError) else error
    if isinstance(behind, StorageAwayError | StorageRefusedError):
        return "storage"
    # A network that is tried on a broken GPU is said not to take the images.
    if isinstance(error, ResourceError) or any(map(is_device_error, _with_causes(error))):
        return "device"
    if isinstance(error, OutputError):
        return "setup"
    if isinstance(error, OSError) and error.errno in _NETWORK:
        return "storage"
    if not is_built or isinstance(error, ImportError):
        return "setup"
    if isinstance(error, DataError):
        return "data"
    if isinstance(error, ConfigError):
        return "setup"
    return "shard" if isinstance(error, OSError | IncompleteError) else "code"


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it was raised from, in turn."""
    behind: BaseException | None = error
    while behind is not None:
        yield behind
        behind = behind.__cause__


def is_device_error(error: BaseException) -> bool:
    """Returns whether an error is of the GPU or the node's memory, which others need not see.

    Memory counts: who scores makes batches smaller first, so that a lack of it which comes here is
    of what else runs there.
    """
    if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _DEVICE_SIGNS)


def told(error: BaseException) -> str:
    """Returns an error as a status tells it."""
    return f"{type(error).__name__}: {error}" if not isinstance(error, DataError) else str(error)
