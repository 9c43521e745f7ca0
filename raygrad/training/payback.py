"""When scoring has paid for itself: only where a subset serves as all the data does.

A subset that is quick to train and useless saves nothing. Scores are set against what would have
been done without them: training on the smallest random subset, or on all the data, that is as
accurate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from raygrad.training.plan import break_even

FULL = 1.0


@dataclass(frozen=True)
class Cell:
    """What retraining on one method's subsets of one share came to, on average."""

    accuracy: float
    """Mean test accuracy, in [0, 1]."""
    time_s: float
    """Mean device-seconds of a retraining."""


@dataclass(frozen=True)
class Payback:
    """After how many retrainings the scores of one method's subsets are paid."""

    method: str
    keep_fraction: float
    instead: float
    """The smallest measured share at which random is as accurate; 1 is all the data."""
    saved_s: float
    """Device-seconds that each retraining saves against that."""
    accuracy_lost: float
    """Mean accuracy on all the data less that on the subset, at most the margin."""
    retrainings: int | None
    """After how many the scores are paid; None where a retraining saves nothing."""


def paybacks(
    cells: Mapping[str, Mapping[float, Cell]],
    full: Cell,
    spent_s: float,
    *,
    margin: float,
    chance: float,
) -> list[Payback]:
    """Returns when scores have paid for themselves, by method and share.

    Only subsets whose mean accuracy is within the margin of that on all the data are asked, and
    none where all the data teach no more than chance.

    Args:
        cells: By method, random among them, then by share below 1.
        full: Retraining on all the data.
        spent_s: Device-seconds that training for scores and scoring took, once.
        margin: The accepted loss of accuracy.
        chance: The accuracy of a guess, such as 1 over the number of classes.
    """
    if full.accuracy - margin <= chance:
        return []
    random = {**cells.get("random", {}), FULL: full}
    found = []
    for method, by_share in sorted(cells.items()):
        if method == "random":
            continue
        for share, cell in sorted(by_share.items()):
            # A mean at the margin is within it, though not in binary.
            if full.accuracy - cell.accuracy - margin > 1e-12:
                continue
            as_good = [at for at, other in random.items() if other.accuracy >= cell.accuracy]
            instead = min(as_good, default=FULL)
            saved_s = random[instead].time_s - cell.time_s
            needed = break_even(spent_s, random[instead].time_s, cell.time_s)
            lost = full.accuracy - cell.accuracy
            found.append(Payback(method, share, instead, saved_s, lost, needed))
    return found
