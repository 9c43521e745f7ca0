"""Images and labels of a split, as the training loop takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Images and labels of one split or subset, in memory or in a file that is mapped."""

    images: Tensor
    """Pixels, uint8 `[M, C, H, W]`."""
    labels: Tensor
    """Classes, int64 `[N]`."""
    is_mapped: bool = False
    """Whether the pixels are in a file, of which memory may hold a part."""
    rows: Tensor | None = None
    """Where each example is in `images`, int64 `[N]`; None where N is M and they are in order."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> torch.Size:
        """`[C, H, W]`."""
        return self.images.shape[1:]

    def take(self, positions: Tensor) -> Tensor:
        """Returns the images at `positions`, uint8 `[b, C, H, W]`, on the images' device."""
        at = positions.to(self.images.device)
        return self.images[at if self.rows is None else self.rows[at]]

    def between(self, start: int, end: int) -> Tensor:
        """Returns the images of consecutive positions, without a copy where they lie together."""
        end = min(end, len(self))
        if self.rows is None:
            return self.images[start:end]
        return self.take(torch.arange(start, end))

    def chunks(self, starts: Sequence[int], size: int) -> Iterator[Tensor]:
        """Yields the images from each start on, `size` of them or what is left."""
        for start in starts:
            yield self.between(start, start + size)

    def near(self, device: torch.device) -> "Examples":
        """Returns the examples on a device, the same tensors where they are there already.

        Images stay in host memory where they would take more than half of the GPU's free memory;
        their batches are moved one at a time.
        """
        labels = self.labels.to(device)
        if self.images.device == device:
            return Examples(self.images, labels, self.is_mapped, self.rows)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if len(self) * self.images[:1].nbytes > free // 2:
                return Examples(self.images, labels, self.is_mapped, self.rows)
        return Examples(self.between(0, len(self)).to(device), labels)
