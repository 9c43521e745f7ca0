"""What watches a training: it sees every forward pass and the network after every epoch."""

from typing import Any, Protocol

from torch import Tensor, nn


class Observer(Protocol):
    """Measures while a network is trained, and never changes what comes out of it.

    Every rank has its own; `state_dict` and `after_epoch` are called on all ranks at the same
    step, so that they may add up what each has seen.
    """

    name: str
    """Names its state in a training's saved state."""

    def on_batch(self, positions: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Sees this rank's share of a step's forward pass.

        Args:
            positions: Which training examples, int64 ``[B]``; possibly none.
            logits: float32 ``[B, C]``, detached.
            labels: int64 ``[B]``.
        """

    def after_epoch(self, epoch: int, network: nn.Module) -> None:
        """Sees the network in evaluation mode after an epoch, which is counted from 1."""

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values, the same on every rank, to go on from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned, with any number of ranks."""
