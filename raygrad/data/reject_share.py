"""How many examples may be unusable: one rule for every stage that opens images."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from raygrad.errors import TooManyRejectsError

_NUM_REASONS = 3


def check_reject_share(rejects: pa.Table, num_used: int, max_share: float) -> None:
    """Raises if more examples were rejected than is accepted, or none is left.

    Args:
        rejects: Examples that could not be used, with the columns of `REJECT_SCHEMA`.
        num_used: Examples that could.
        max_share: The share of rejects that is accepted, in [0, 1].

    Raises:
        TooManyRejectsError: It carries the rejects.
    """
    num = rejects.num_rows
    if num == 0 or (num_used and num <= max_share * (num_used + num)):
        return
    first = rejects.slice(0, 1).to_pylist()[0]
    raise TooManyRejectsError(
        f"at most {max_share:.3%} of the images may be unusable, got {num} of {num_used + num}; "
        f"most often: {common_reasons(rejects)}, first in {place(first)}. "
        "Mend the shards, or accept more: --max-reject-share.",
        rejects.to_pylist(),
    )


def common_reasons(rejects: pa.Table) -> str:
    """Returns the most frequent reasons with their counts, as text of one line."""
    counts = Counter(rejects["reason"].to_pylist()).most_common(_NUM_REASONS)
    return "; ".join(f"{reason} ({count})" for reason, count in counts)


def place(reject: Mapping[str, str]) -> str:
    """Returns where a reject was found: shard and key, or the shard alone."""
    return f"{reject['shard']} {reject['key']!r}" if reject["key"] else reject["shard"]
