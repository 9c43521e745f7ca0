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

    def of(self, inputs: Tensor) -> Tensor:
        """Returns the features of a batch ``[B, C, H, W]``, float16 ``[B, D]``."""
        return self.with_logits(inputs)[0].half()

    def with_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features ``[B, D]`` and logits ``[B, C]`` of a batch ``[B, C, H, W]``.

        Raises:
            ConfigError: The layer is not called once, with a row an example.
        """
        seen: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        try:
            with torch.no_grad():
                logits = self._network(inputs.clone())
        finally:
            hook.remove()
        if len(seen) != 1 or len(seen[0]) != len(inputs):
            raise ConfigError(
                "features must be one row an example, from one call of the last linear layer, got "
                f"{len(seen)} calls for {len(inputs)} examples. Do without features."
            )
        return seen[0].flatten(1), logits
