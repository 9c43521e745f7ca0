"""Checks what a run under faults did and left: a history and outputs against invariants.

Plain values, no process and no Ray: the same checks hold for planted corruption as for real runs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Row = tuple[str, ...]
"""A row of a table, each value as its repr: bits are compared, and NaN is NaN."""


@dataclass
class Start:
    """One start of the command, as a user makes it."""

    status: int
    """As a shell gives it: 128 + n for a process that signal n ended."""
    wanted: tuple[int, ...]
    """The statuses that are right after what was done to it."""
    took_s: float
    has_traceback: bool = False


@dataclass
class Outcome:
    """What a schedule came to."""

    starts: list[Start] = field(default_factory=list)
    num_late: int = 0
    """Starts that came to nothing, for Ray was not up in time on a busy machine."""
    torn: list[str] = field(default_factory=list)
    """What a reader found that was not whole, at any moment."""
    seen: dict[str, list[str]] = field(default_factory=dict)
    """For each part, the digests of its rows that a reader met, in turn."""
    tables: dict[str, list[Row]] = field(default_factory=dict)
    """The rows of each table at the end; of the score table the first column is the key."""
    num_used: int = 0
    num_rejected: int = 0
    num_indexed: int = 0
    orphans: list[str] = field(default_factory=list)
    """Processes that were still there."""
    leftovers: list[str] = field(default_factory=list)
    """Temporary files, locks and unfinished uploads."""


SCORES = "scores"
"""The name of the score table among the tables."""


def check(outcome: Outcome, undisturbed: Mapping[str, Sequence[Row]], bound_s: float) -> list[str]:
    """Returns what does not hold of an outcome, each in a line; none where all holds.

    Args:
        outcome: What happened.
        undisturbed: The tables of the same run without a fault.
        bound_s: How long one start may take.
    """
    return [
        *_same_tables(outcome.tables, undisturbed),
        *_all_settled_once(outcome),
        *(f"half-written: {one}" for one in outcome.torn),
        *_good_starts(outcome.starts, bound_s),
        *(f"process left: {one}" for one in outcome.orphans),
        *(f"file left: {one}" for one in outcome.leftovers),
    ]


def _same_tables(
    tables: Mapping[str, Sequence[Row]], undisturbed: Mapping[str, Sequence[Row]]
) -> list[str]:
    wrong = []
    for name in sorted({*tables, *undisturbed}):
        found, right = Counter(tables.get(name, ())), Counter(undisturbed.get(name, ()))
        if name not in tables or name not in undisturbed:
            wrong.append(f"{name}: {'lacks' if name not in tables else 'should not be there'}")
        elif found != right:
            more, fewer = (found - right).total(), (right - found).total()
            wrong.append(f"{name}: {more} rows that are not right, {fewer} right ones lack")
    return wrong


def _all_settled_once(outcome: Outcome) -> list[str]:
    wrong = []
    if outcome.num_used + outcome.num_rejected != outcome.num_indexed:
        wrong.append(
            f"used + rejected is {outcome.num_used} + {outcome.num_rejected}, "
            f"not the index's {outcome.num_indexed}"
        )
    keys = Counter(row[0] for row in outcome.tables.get(SCORES, ()))
    wrong += [f"settled {count} times: {key}" for key, count in keys.items() if count > 1]
    wrong += [
        f"settled again, to other scores: {part}"
        for part, digests in outcome.seen.items()
        if len(set(digests)) > 1
    ]
    return wrong


def _good_starts(starts: Sequence[Start], bound_s: float) -> list[str]:
    wrong = [
        f"start {at}: status {start.status}, not of {start.wanted}"
        for at, start in enumerate(starts)
        if start.status not in start.wanted
    ]
    wrong += [
        f"start {at}: took {start.took_s:.0f} s, over {bound_s:.0f} s"
        for at, start in enumerate(starts)
        if start.took_s > bound_s
    ]
    wrong += [f"start {at}: a traceback" for at, one in enumerate(starts) if one.has_traceback]
    if not starts or starts[-1].status != 0:
        wrong.append(f"never complete after {len(starts)} starts")
    return wrong
