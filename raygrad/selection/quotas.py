"""How many examples each class gives: exact totals, whatever the imbalance."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError

Counts = NDArray[np.int64]
ClassBalanced = bool | Literal["even", "proportional"]


@dataclass(frozen=True)
class Budget:
    """How many rows are drawn, and how classes share them."""

    total: int
    class_balanced: ClassBalanced = False

    def __post_init__(self) -> None:
        if self.class_balanced not in (True, False, "even", "proportional"):
            raise ConfigError(
                "class_balanced must be False, True, 'even' or 'proportional', "
                f"got {self.class_balanced!r}."
            )

    def over(self, counts: Counts, where: str = "", remedy: str = "Lower keep_fraction.") -> Counts:
        """Returns how many each class gives of the rows it has, int64 `[C]`.

        Raises:
            ConfigError: The budget is not in [1, sum of counts]; `where` and `remedy` say more.
        """
        if not 1 <= self.total <= counts.sum():
            rule = f"budget must be in [1, {counts.sum()}]" + (f" {where}" if where else "")
            raise ConfigError(f"{rule}, got {self.total}. {remedy}")
        share = proportional_quotas if self.class_balanced == "proportional" else even_quotas
        return share(counts, self.total)


def even_quotas(counts: Counts, budget: int) -> Counts:
    """Returns equal quotas; a group smaller than its quota gives all, the others share the rest.

    Quotas never shrink as the budget grows, so class-balanced subsets of one seed nest.

    Args:
        counts: How many examples each group has, int64 `[G]`.
        budget: The total, in [0, sum of counts].

    Returns:
        int64 `[G]`, at most `counts`, sum `budget`; two groups that are not exhausted differ by
        at most one, and the larger group gives the odd one (of equal ones, the first).

    Raises:
        ConfigError: The budget is more than there is.
    """
    _check(counts, budget)
    by_size = np.argsort(counts, kind="stable")
    quotas = np.zeros(len(counts), np.int64)
    left = budget
    for done, group in enumerate(by_size.tolist()):
        quotas[group] = min(int(counts[group]), left // (len(counts) - done))
        left -= int(quotas[group])
    # The floor above gives later (larger) groups the odd ones, of equals the last: turn that round.
    for size in np.unique(counts).tolist():
        equal = np.flatnonzero(counts == size)
        quotas[equal] = np.sort(quotas[equal])[::-1]
    return quotas


def proportional_quotas(counts: Counts, budget: int) -> Counts:
    """Returns quotas proportional to the counts, by the method of largest remainder (Hamilton's).

    Each group gets the floor of its exact share; what is left goes one each to the largest
    remainders (of equal ones, to the first). Unlike `even_quotas`, a quota may shrink by one as
    the budget grows (the Alabama paradox), so such subsets nest up to that.

    Args:
        counts: How many examples each group has, int64 `[G]`.
        budget: The total, in [0, sum of counts].

    Returns:
        int64 `[G]`, at most `counts`, sum `budget`, each within one of its exact share.

    Raises:
        ConfigError: The budget is more than there is.
    """
    _check(counts, budget)
    total = int(counts.sum())
    shares = [divmod(int(count) * budget, total) for count in counts]  # exact in Python's integers
    quotas = np.array([whole for whole, _ in shares], np.int64)
    remainders = np.array([rest for _, rest in shares], dtype=object)
    first = sorted(range(len(shares)), key=lambda at: -remainders[at])
    quotas[first[: budget - int(quotas.sum())]] += 1
    return quotas


def _check(counts: Counts, budget: int) -> None:
    if not 0 <= budget <= counts.sum():
        raise ConfigError(f"budget must be in [0, {counts.sum()}], got {budget}. Lower it.")
