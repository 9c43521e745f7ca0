"""The answer of a sweep: which method leads at which share, in few words and in all of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from raygrad.report.comparing import Comparison
from raygrad.report.intervals import Interval
from raygrad.report.results import BASELINE, Panel, Point
from raygrad.report.wording import listed, percent

EVERY = "every method"


@dataclass(frozen=True)
class Leader:
    """The best and the worst method at one share, by mean test accuracy.

    Attributes:
        share: Of the data, in (0, 1).
        best: The method.
        first: Its point.
        worst: The method.
        last: Its point.
        apart: Whether the best or the worst is told apart from random.
        clear: Whether the best is better than random beyond the intervals; where random is best,
            whether every other method is worse. Not whether the best is told apart from the
            second.
    """

    share: float
    best: str
    first: Point
    worst: str
    last: Point
    apart: bool
    clear: bool

    @property
    def level(self) -> bool:
        """Whether every method has the same mean, so that none leads."""
        return self.first.interval.mean == self.last.interval.mean

    @property
    def name(self) -> str:
        """The best method; every one where all are level."""
        return EVERY if self.level else self.best


def leaders(panel: Panel, compared: Sequence[Comparison]) -> list[Leader]:
    """The best and the worst at each share that two methods have, by rising share.

    Args:
        panel: Curves of one network and protocol.
        compared: Its methods against random.
    """
    by_cell = {(c.method, c.keep_fraction): c for c in compared}
    shares: dict[float, list[tuple[str, Point]]] = {}
    for name, points in panel.curves.items():
        for p in points:
            shares.setdefault(p.keep_fraction, []).append((name, p))
    out = []
    for share, found in sorted(shares.items()):
        if len(found) < 2:
            continue
        # Of equal means random, then the first by name: never the one that scatters most.
        ranked = sorted(found, key=lambda e: (-e[1].interval.mean, e[0] != BASELINE, e[0]))
        (best, first), (worst, last) = ranked[0], ranked[-1]
        mine = {name: by_cell.get((name, share)) for name, _ in ranked}
        ends = [c for c in (mine[best], mine[worst]) if c is not None]
        others = [mine[name] for name, _ in ranked if name != BASELINE]
        lead = mine[best]
        clear = (
            all(c is not None and c.worse for c in others)
            if best == BASELINE
            else lead is not None and lead.better
        )
        apart = any(c.better or c.worse for c in ends)
        out.append(Leader(share, best, first, worst, last, apart, clear))
    return out


def accuracy_words(interval: Interval, digits: int = 1) -> str:
    """A mean with its interval in percent: ``93.9%, 92.7 to 95.1``."""
    mean, low, high = (
        f"{100 * end:.{digits}f}" for end in (interval.mean, interval.low, interval.high)
    )
    return f"{mean}%, {low} to {high}" if interval.known else f"{mean}%"


def headline(panel: Panel, compared: Sequence[Comparison]) -> str | None:
    """What was seen, in a sentence: the best and the worst method at each share, by mean.

    Shares whose best method is the same stand together. A share at which neither the best nor the
    worst is told apart from random is marked so. None where no share has two methods.

    Args:
        panel: Curves of one network and protocol.
        compared: Its methods against random.
    """
    clauses = []
    for best, group in itertools.groupby(leaders(panel, compared), lambda leader: leader.name):
        if best == EVERY:
            texts = [f"{percent(at.share)} ({accuracy_words(at.first.interval)})" for at in group]
            clauses.append(f"{best} is the same at {listed(texts)}")
            continue
        texts = [
            f"{percent(at.share)} ({accuracy_words(at.first.interval)}; worst {at.worst} "
            f"{accuracy_words(at.last.interval)}{'' if at.apart else '; not told apart'})"
            for at in group
        ]
        clauses.append(f"{best} is best at {listed(texts)}")
    if not clauses:
        return None
    full = panel.full
    whole = f"; all the data {accuracy_words(full.interval)}" if full is not None else ""
    return f"By mean test accuracy {'; '.join(clauses)}{whole}."


def answer(panel: Panel, compared: Sequence[Comparison]) -> str | None:
    """The same in as few words as open a page: who leads where, and what is known of it.

    That is whether the leader is better than random beyond the intervals, and where random leads
    whether every other method is worse; a leader may be told apart from random alone. The accuracy
    in it is the leader's at the largest share. None where no share has two methods.

    Args:
        panel: Curves of one network and protocol.
        compared: Its methods against random.
    """
    found = leaders(panel, compared)
    if not found:
        return None
    concluded = any(at.first.interval.known for at in found)
    clauses: list[str] = []
    led = False
    for best, of in itertools.groupby(found, lambda leader: leader.name):
        group = list(of)
        notes = [accuracy_words(group[-1].first.interval)] if group[-1] is found[-1] else []
        notes += [_certainty(group)] if concluded and best != EVERY else []
        note = f" ({'; '.join(notes)})" if notes else ""
        leads = " is the same" if best == EVERY else "" if led else " leads"
        led = best != EVERY
        clauses.append(f"{best}{leads} at {_range([at.share for at in group])}{note}")
    full = panel.full
    whole = f"; all the data give {accuracy_words(full.interval)}" if full is not None else ""
    nothing = "" if concluded else f"; {_no_interval(found)}"
    return f"{listed(clauses)}{whole}{nothing}."


def _no_interval(found: Sequence[Leader]) -> str:
    """Why no point has an interval: one seed each, or seeds that all agree."""
    alone = all(len(at.first.samples) < 2 for at in found)
    if alone:
        return "with one seed a point nothing is concluded"
    return "seeds all agree and the size of the test set is not known: nothing is concluded"


def _range(shares: Sequence[float]) -> str:
    words = [percent(share) for share in shares]
    return listed(words) if len(words) < 3 else f"{words[0]} to {words[-1]}"


def _certainty(group: Sequence[Leader]) -> str:
    """How one leader stands to random beyond the intervals, at all of its shares or at some."""
    clear = [at.share for at in group if at.clear]
    random = group[0].best == BASELINE
    if not clear:
        return (
            "not every other method shown to be worse"
            if random
            else f"not shown to be better than {BASELINE}"
        )
    words = "every other method worse" if random else f"better than {BASELINE}"
    some = f" at {listed([percent(share) for share in clear])}" if len(clear) < len(group) else ""
    return f"{words} beyond the intervals{some}"
