"""What enters the linear layer that makes the logits: the features of an example."""

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError


class FeatureTap:
    """What enters the last linear layer of a network, from a forward pass of its own.

    The passes that score are no place to listen: an example may run alone, or beside its copy.

    Args:
        network: In evaluation mode.

    Raises:
        ConfigError: The network has no linear layer.
    """

    def __init__(self, network: nn.Module) -> None:
        linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise ConfigError(
                "features must be the input of a last linear layer, got a network without one. "
                "Do without features, or name a network that ends in one."
            )
        self._network, self._last = network, linear[-1]
        self._makes_logits: bool | None = None

    def of(self, inputs: Tensor) -> Tensor:
        """Returns the features of a batch ``[B, C, H, W]``, float16 ``[B, D]``."""
        return self.with_logits(inputs)[0].half()

    def with_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features ``[B, D]`` and logits ``[B, C]`` of a batch ``[B, C, H, W]``.

        Raises:
            ConfigError: The layer is not called once, with a row an example.
        """
        features, _, logits = self._passed(inputs)
        return features, logits

    def of_last_layer(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns features ``[B, D]``, and logits ``[B, C]`` if the layer makes them.

        They are None where the network goes on after the layer, or has its logits from another
        one: the outer product of error and feature is no gradient of its weights then. The first
        batch says it for all.

        Raises:
            ConfigError: As of `with_logits`.
        """
        features, made, logits = self._passed(inputs)
        if self._makes_logits is None:
            self._makes_logits = _equal(made, logits)
        return features, logits if self._makes_logits else None

    def _passed(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what enters the layer, what leaves it, and the logits."""
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self._last.register_forward_hook(
            lambda _, given, made: seen.append((given[0].detach(), made.detach()))
        )
        try:
            with torch.no_grad():
                logits = self._network(inputs.clone())
        finally:
            hook.remove()
        if len(seen) != 1 or len(seen[0][0]) != len(inputs):
            raise ConfigError(
                "features must be one row an example, from one call of the last linear layer, got "
                f"{len(seen)} calls for {len(inputs)} examples. Do without features."
            )
        [(entered, made)] = seen
        return entered.flatten(1), made, logits


def _equal(one: Tensor, other: Tensor) -> bool:
    """Tells whether two tensors hold the same; what is no number in both is the same."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
