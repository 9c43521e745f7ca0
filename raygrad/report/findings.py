"""What the results show, in sentences that are never stronger than their intervals.

Every claim compares means over seeds by Welch's t interval. One sentence rests on many such
comparisons (methods by fractions), so their confidence is raised until all of them hold together
with 95% (Bonferroni); a claim that such an interval does not carry is not made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raygrad.report.intervals import CONFIDENCE, Interval, difference_interval
from raygrad.report.results import BASELINE, FULL, Panel, Point
from raygrad.report.wording import listed, percent
from raygrad.selection.attributes import MAX_LOSS

MARGIN = MAX_LOSS  # "close to full accuracy" is one thing in findings and in redundancy


@dataclass(frozen=True)
class Comparison:
    """One method against random at one fraction.

    Attributes:
        method: The method.
        keep_fraction: The share of the data both were given.
        gain: Mean accuracy less random's, in [-1, 1], with its simultaneous interval.
    """

    method: str
    keep_fraction: float
    gain: Interval

    @property
    def better(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.gain.known and self.gain.low > 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.gain.known and self.gain.high < 0


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


def simultaneous(count: int) -> float:
    """The confidence of each of ``count`` intervals that makes all hold together with 95%."""
    return 1 - (1 - CONFIDENCE) / max(count, 1)


def comparisons(panel: Panel) -> list[Comparison]:
    """Every method against random at every fraction that both have, with simultaneous intervals."""
    baseline = {p.keep_fraction: p for p in panel.curves.get(BASELINE, ())}
    pairs = [
        (name, point, baseline[point.keep_fraction])
        for name, points in panel.curves.items()
        if name != BASELINE
        for point in points
        if point.keep_fraction in baseline
    ]
    level = simultaneous(len(pairs))
    return [
        Comparison(
            name,
            point.keep_fraction,
            difference_interval(point.values, base.values, level, panel.resolution),
        )
        for name, point, base in pairs
    ]


def needs(panel: Panel, margin: float = MARGIN) -> list[Need]:
    """What each method needs to come within ``margin`` of full accuracy; empty without full data.

    Args:
        panel: Curves of one network and protocol.
        margin: Accepted loss of accuracy, in [0, 1].
    """
    if panel.full is None:
        return []
    level = simultaneous(sum(len(points) for points in panel.curves.values()))
    out = []
    for name, points in panel.curves.items():
        gaps = [(p.keep_fraction, _gap(p, panel.full, level, panel.resolution)) for p in points]
        enough: float | None = None
        for fraction, gap in reversed(gaps):
            if not (gap.known and gap.low >= -margin):
                break
            enough = fraction
        below = [fraction for fraction, gap in gaps if gap.known and gap.high < -margin]
        out.append(Need(name, enough, max(below, default=None)))
    return out


def _gap(point: Point, full: Point, level: float, resolution: float) -> Interval:
    return difference_interval(point.values, full.values, level, resolution)


def _need_words(need: Need) -> str | None:
    if need.enough is None:
        return f"{need.method} more than {percent(need.too_little)}" if need.too_little else None
    if need.too_little is None or need.too_little >= need.enough:
        return f"{need.method} at most {percent(need.enough)}"
    return f"{need.method} more than {percent(need.too_little)} and at most {percent(need.enough)}"


def _needs_text(panel: Panel) -> tuple[str, bool] | None:
    found = sorted(needs(panel), key=lambda n: (n.enough or FULL, n.too_little or FULL, n.method))
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


def _against_random(panel: Panel) -> list[tuple[str, bool]]:
    compared = [c for c in comparisons(panel) if c.gain.known]
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
    silent = sorted(set(panel.curves) - {BASELINE} - {c.method for c in compared})
    if silent:
        text, shown = out[-1]
        left = f"Not compared, without seeds enough beside {BASELINE}'s: {listed(silent)}."
        out[-1] = (f"{text} {left}", shown)
    if worse:
        out.append((f"Worse than {BASELINE} beyond the intervals: {_verdicts(worse)}.", True))
    return out


def findings(panels: Sequence[Panel]) -> list[Finding]:
    """All that the sweep shows, network by network and protocol by protocol.

    Args:
        panels: Curves of the sweep.
    """
    out: list[Finding] = []
    for panel in panels:
        need = _needs_text(panel)
        texts = [*([need] if need else []), *_against_random(panel)]
        if not texts:
            texts = [(_silence(panel), False)]
        out += [Finding(text, shown, panel.network, panel.protocol) for text, shown in texts]
    return out


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
