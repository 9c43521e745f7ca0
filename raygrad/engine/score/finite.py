"""Scores that are no numbers: told when the first shard has them, and refused where all are."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from raygrad.errors import DataError
from raygrad.training.outside import NetworkSource

log = logging.getLogger("raygrad")

_MAX_NAMED = 5


class NotFinite:
    """How many scores of each column are NaN or infinite, over the shards of a job."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, shard: str, num_used: int, counts: Mapping[str, int]) -> None:
        """Counts a shard's, and says so of columns that had none before."""
        new = {name: count for name, count in counts.items() if not self.counts[name]}
        self.counts.update(counts)
        if new:
            told = ", ".join(f"{count:,} of {name}" for name, count in new.items())
            log.warning(
                "score: NaN or infinite scores in %s, of %s examples: %s",
                shard,
                f"{num_used:,}",
                told,
            )

    def conclude(self, num_used: int, networks: Sequence[NetworkSource], url: str) -> None:
        """Says how many there are in all; the table is complete by then.

        Raises:
            DataError: No score of a column is a number.
        """
        if not self.counts:
            return
        told = ", ".join(f"{count:,} of {name}" for name, count in sorted(self.counts.items()))
        text = f"got NaN or infinity, of {num_used:,} examples: {told}, in {url}"
        if max(self.counts.values()) < num_used:
            log.warning("score: %s. select stops at them; --missing drop leaves them out", text)
            return
        causes = [cause for source in networks for cause in _broken_weights(source)]
        cause = f" {'; '.join(causes)}." if causes else ""
        raise DataError(
            f"scores must be numbers, {text}.{cause} Mend the network's weights or its "
            "preprocessing, and do the stage again (--redo)."
        )


def _broken_weights(source: NetworkSource) -> list[str]:
    """Returns which weights of a network are NaN or infinite, in a few words each."""
    found = [
        f"{name} ({int((~torch.isfinite(tensor)).sum()):,} of {tensor.numel():,})"
        for name, tensor in source.build().state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if not found:
        return []
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    where = source.checkpoint_url or source.network
    return [f"Not finite in {where}: {', '.join(found[:_MAX_NAMED])}{more}"]
