"""What the results show, in sentences that are never stronger than their intervals.

The first says what was seen: the best and the worst method at each share, by mean. The others are
claims: methods against random by Holm's method over all methods and shares (`comparing`), and the
data that comes near full accuracy. A claim that its interval does not carry is not made; beside
"not told apart" stands the smallest difference that would have been seen.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raygrad.report.answer import headline
from raygrad.report.comparing import Comparison, comparisons, gaps_to_full
from raygrad.report.results import BASELINE, FULL, Panel
from raygrad.report.wording import listed, percent, scope
from raygrad.selection.attributes import MAX_LOSS

MARGIN = MAX_LOSS  # "close to full accuracy" is one thing in findings and in redundancy


@dataclass(frozen=True)
class Need:
    """How much of the data a method needs to come close to full accuracy.

    Attributes:
        method: The method.
        enough: The smallest measured fraction from which on every interval lies within the
            margin of full accuracy; None where none does.
        too_little: The largest measured fraction whose interval lies below the margin; None where
            none does.
    """

    method: str
    enough: float | None
    too_little: float | None


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether its intervals show something or leave it open.

    Attributes:
        text: The sentence.
        shown: Whether an interval carries a positive claim in it.
        network: The network that was retrained.
        protocol: Under which protocol.
    """

    text: str
    shown: bool
    network: str
    protocol: str


def needs(panel: Panel, margin: float = MARGIN) -> list[Need]:
    """What each method needs to come within ``margin`` of full accuracy.

    Empty without full data, and where all of it teaches no more than a guess.

    Args:
        panel: Curves of one network and protocol.
        margin: Accepted loss of accuracy, in [0, 1].
    """
    if panel.full is None or not panel.learned:
        return []
    out = []
    for name, gaps in gaps_to_full(panel).items():
        enough: float | None = None
        for fraction, gap in reversed(gaps):
            if not (gap.known and gap.low >= -margin):
                break
            enough = fraction
        below = [fraction for fraction, gap in gaps if gap.known and gap.high < -margin]
        out.append(Need(name, enough, max(below, default=None)))
    return out


def _need_words(need: Need) -> str | None:
    if need.enough is None:
        return f"{need.method} more than {percent(need.too_little)}" if need.too_little else None
    if need.too_little is None or need.too_little >= need.enough:
        return f"{need.method} at most {percent(need.enough)}"
    return f"{need.method} more than {percent(need.too_little)} and at most {percent(need.enough)}"


def _needs_text(panel: Panel) -> tuple[str, bool] | None:
    # By what is known to be enough: an upper bound that noise keeps low must not lead.
    found = sorted(needs(panel), key=lambda n: (n.enough or 2.0, n.too_little or FULL, n.method))
    words = [w for n in found if (w := _need_words(n)) is not None]
    if not words or panel.full is None:
        return None
    silent = [n.method for n in found if _need_words(n) is None]
    if silent:
        words.append(f"open for {listed(silent)}")
    text = (
        f"Data needed to come within {100 * MARGIN:g} points of full accuracy "
        f"({100 * panel.full.interval.mean:.2f}%): {'; '.join(words)}."
    )
    return text, True


def _points(difference: float) -> str:
    # An interval may reach past what accuracies can differ by; its sentence does not.
    return f"{100 * min(max(difference, -1.0), 1.0):+.2f}"


def _verdicts(chosen: Sequence[Comparison]) -> str:
    """``method at 5% and 10% (+3.61 points at 5%, 2.84 to 4.38)`` for each method."""
    parts = []
    for method in sorted({c.method for c in chosen}):
        mine = sorted((c for c in chosen if c.method == method), key=lambda c: c.keep_fraction)
        far = max(mine, key=lambda c: abs(c.gain.mean))
        at = f" at {percent(far.keep_fraction)}" if len(mine) > 1 else ""
        parts.append(
            f"{method} at {listed([percent(c.keep_fraction) for c in mine])} "
            f"({'by up to ' if len(mine) > 1 else 'by '}{abs(100 * far.gain.mean):.2f} points{at}, "
            f"interval {_points(far.gain.low)} to {_points(far.gain.high)})"
        )
    return "; ".join(parts)


def _not_compared(compared: Sequence[Comparison], panel: Panel) -> list[str]:
    """Methods that no comparison tells of, at all of their shares or at those that are named."""
    covered = {(c.method, c.keep_fraction) for c in compared}
    words = []
    for name, points in sorted(panel.curves.items()):
        silent = [p.keep_fraction for p in points if (name, p.keep_fraction) not in covered]
        if name != BASELINE and silent:
            at = f" at {listed([percent(share) for share in silent])}"
            words.append(f"{name}{at if len(silent) < len(points) else ''}")
    return words


def _against_random(compared: Sequence[Comparison], panel: Panel) -> list[tuple[str, bool]]:
    compared = [c for c in compared if c.gain.known]
    if not compared:
        return []
    better, worse = [c for c in compared if c.better], [c for c in compared if c.worse]
    out = []
    if better:
        out.append((f"Better than {BASELINE} beyond the intervals: {_verdicts(better)}.", True))
    else:
        fractions = sorted({c.keep_fraction for c in compared})
        reach = f"from {percent(fractions[0])} to {percent(fractions[-1])}"
        reach = reach if len(fractions) > 1 else f"at {percent(fractions[0])}"
        out.append((f"No method beats {BASELINE} beyond its interval, {reach} of the data.", False))
    silent = _not_compared(compared, panel)
    if silent:
        text, shown = out[-1]
        left = f"Not compared, without seeds enough beside {BASELINE}'s: {'; '.join(silent)}."
        out[-1] = (f"{text} {left}", shown)
    if worse:
        out.append((f"Worse than {BASELINE} beyond the intervals: {_verdicts(worse)}.", True))
    still_open = [c for c in compared if not (c.better or c.worse)]
    if still_open:
        out.append((_visible(still_open, compared), False))
    return out


def _visible(still_open: Sequence[Comparison], compared: Sequence[Comparison]) -> str:
    """What is not told apart, and the smallest difference that would have been seen there."""
    counts = Counter(c.keep_fraction for c in compared)
    parts = []
    for share in sorted({c.keep_fraction for c in still_open}):
        here = [c for c in still_open if c.keep_fraction == share]
        least = max(min(c.visible, 1.0) for c in here)
        names = listed(sorted(c.method for c in here))
        everything = len(here) > 1 and len(here) == counts[share]
        parts.append(
            f"at {percent(share)} {'every method' if everything else names} "
            f"({100 * least:.2f} points)"
        )
    return (
        f"Not told apart from {BASELINE}, with the smallest true difference that four of five such "
        f"sweeps would show: {'; '.join(parts)}."
    )


def findings(panels: Sequence[Panel]) -> list[Finding]:
    """All that the sweep shows, network by network and protocol by protocol.

    Each sentence begins with what it holds for: one scoring network, or so many.

    Args:
        panels: Curves of the sweep.
    """
    out: list[Finding] = []
    for panel in panels:
        compared = comparisons(panel)
        need = _needs_text(panel)
        texts = [*_against_random(compared, panel), *([need] if need else [])]
        if not texts:
            texts = [(_silence(panel), False)]
        seen = headline(panel, compared)
        if seen is not None:
            texts.insert(0, (seen, any(c.better or c.worse for c in compared)))
        if panel.full is not None and not panel.learned:
            texts.append((_unlearned(panel.full.interval.mean, panel.chance), False))
        where = scope(*panel.score_network_counts)
        out += [
            Finding(f"{where}: {text}", shown, panel.network, panel.protocol)
            for text, shown in texts
        ]
    return out


def _unlearned(accuracy: float, chance: float) -> str:
    return (
        f"All the data teach no more than a guess ({percent(accuracy)}, a guess "
        f"{percent(chance)}), so nothing is said of how much of it is enough."
    )


def _silence(panel: Panel) -> str:
    counts = [p.interval.n for points in panel.curves.values() for p in points]
    if counts and max(counts) < 2:
        return (
            "With one seed a point there is no interval, so the curves are shown and nothing is "
            "concluded from them; run the sweep with more seeds."
        )
    if comparisons(panel) or (panel.full is not None and counts):
        return (
            "There is no interval that carries a conclusion, so the curves are shown and nothing "
            "is concluded from them; run the sweep with more seeds."
        )
    return f"The sweep has nothing to compare: it takes {BASELINE} or the full data too."
