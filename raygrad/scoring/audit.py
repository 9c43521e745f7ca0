"""Compares an example's scores in its batch with those of the same example scored alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.trial import DEPENDS
from raygrad.scoring.verify import is_half, near

EVERY = 500
"""Images between two audits: a shard of 1,000 has one of its first batch and one or two later."""


@dataclass
class Audit:
    """When an example is scored again, alone, and what comes of it.

    In the first batch of two images or more the other way is the plain loop, in later ones the
    plan itself, on one image. The example's place changes from one audit to the next.
    """

    count: int = 0
    """Audits made."""
    images: int = 0
    """Images since the last."""

    @property
    def first(self) -> bool:
        """Whether the audit that is due is the first."""
        return self.count == 0

    def chosen(self, logits: Tensor) -> int | None:
        """The place of the example to score again; None where no audit is due.

        Args:
            logits: Those of the batch, ``[B, C]``.
        """
        self.images += len(logits)
        if len(logits) < 2 or (self.count > 0 and self.images < EVERY):
            return None
        place = (self.count * 7919 + 1) % len(logits)
        return place if bool(logits[place].isfinite().all()) else None

    def agrees(
        self,
        norms: Mapping[str, Tensor],
        logits: Tensor,
        alone: Mapping[str, Tensor],
        alone_logits: Tensor,
        at: int,
    ) -> bool:
        """Whether the norms of the example are those that it has alone.

        Args:
            norms: The columns of the batch, ``[B]`` each.
            logits: Its logits, ``[B, C]``.
            alone: The columns of the example alone, ``[1]`` each.
            alone_logits: Its logits, ``[1, C]``.
            at: Its place in the batch.

        Raises:
            ConfigError: The logits differ, or the norms of a later batch do: numbers that were
                given out before may have been wrong.
        """
        first, self.count, self.images = self.first, self.count + 1, 0
        if not near(logits[at : at + 1], alone_logits):
            raise ConfigError(DEPENDS)
        relative = 0.1 if is_half(logits) else 2e-3
        for name, column in norms.items():
            exact = alone[name][0].double()
            limit = relative * exact + 1e-6 * column.double().abs().max()
            difference = (column[at].double() - exact).abs()
            if bool(exact.isfinite()) and not bool(difference <= limit):
                if first:
                    return False
                raise ConfigError(
                    "an example's gradient must not depend on the batch that it is in, got a "
                    f"{name} of {float(column[at]):.6g} in a batch of {len(logits)}, and of "
                    f"{float(exact):.6g} alone. Make the model treat every example apart, or "
                    "score batches of one."
                )
        return True
