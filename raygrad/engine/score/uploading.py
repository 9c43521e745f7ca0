"""Decoded batches to the device: from pinned memory, by a stream of their own beside its work."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Uploaded:
    """Images and labels that are on the device, or will be when its stream has come so far."""

    images: Tensor
    """Pixels, uint8 `[B, C, H, W]`."""
    labels: Tensor
    """Classes, int64 `[B]`."""
    done: Any = None
    """What the stream has recorded after them; None on a CPU."""


@final
class Uploader:
    """Copies batches to a device; `send` is called on the thread that decodes.

    Args:
        device: Where the networks are.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream: Any = None

    def send(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Uploaded:
        """Begins to copy a batch, and does not wait for it."""
        held = torch.from_numpy(images), torch.from_numpy(labels)
        if self._device.type != "cuda":
            return Uploaded(*held)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._stream):
            # Only from pinned memory does a copy go on beside what is computed.
            copies = [one.pin_memory().to(self._device, non_blocking=True) for one in held]
            done = torch.cuda.Event()
            done.record(self._stream)
        return Uploaded(copies[0], copies[1], done)

    def receive(self, batch: Uploaded) -> tuple[Tensor, Tensor]:
        """Returns a batch's tensors; what is computed from them waits for them on the device."""
        if batch.done is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(batch.done)
            for tensor in (batch.images, batch.labels):
                # Their memory belongs to the other stream, which would give it away too early.
                tensor.record_stream(computing)
        return batch.images, batch.labels
