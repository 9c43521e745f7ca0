"""Numbers and names as the report writes them."""

import math

from raygrad.selection.attributes import Bracket

_ALL = 1 - 1e-9  # from here on a fraction is 1 but for rounding
_NEARLY = 0.9999


def percent(fraction: float) -> str:
    """A fraction as a percentage with two or three significant digits: ``0.32%``, ``95%``.

    What is above 0 and below 1 is neither ``0%`` nor ``100%``: close to all it has more digits,
    ``99.96%``, or is ``over 99.99%``.
    """
    value = 100 * fraction
    if value == 0:
        return "0%"
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if abs(value) < 10 else 1
    if 0.9995 <= fraction < _ALL:
        if fraction > _NEARLY:
            return f"over {percent(_NEARLY)}"
        digits = 2
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


def top_words(share: float, size: int, number: int) -> str:
    """The hardest of a share in words: ``1%``, or ``1 (1.7%)`` where they are another share.

    Of few examples there is no 1%, but one example at least.

    Args:
        share: What was asked for, in (0, 1).
        size: How many examples were taken for it.
        number: Of so many.
    """
    if abs(size / number - share) <= share / 10:
        return percent(share)
    return f"{count(size)} ({percent(size / number)})"


def count(number: int) -> str:
    """A whole number with thin thousands: ``1,281,167``."""
    return f"{number:,}"


def times(ratio: float) -> str:
    """A ratio with three significant digits and no powers of ten: ``3.05``, ``3,050``."""
    return f"{float(f'{ratio:.3g}'):,.12g}"


def protocol_words(protocol: str) -> str:
    """A protocol for people: ``equal_epochs`` is ``equal epochs``."""
    return protocol.replace("_", " ")


def duration(seconds: float) -> str:
    """A length of time: ``35 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def scope(fewest: int, most: int) -> str:
    """What a result holds for: ``Given one scoring network``, ``Over 3 scoring networks``.

    Where some shares have more of them than others, it is ``Over 1 to 3 scoring networks``.

    Subsets of one network's scores say nothing of those that another network, trained alike from
    another seed, would have chosen.

    Args:
        fewest: Scoring networks whose replicates are averaged, at least 1.
        most: As many stand behind another point, at least ``fewest``.
    """
    if most > fewest:
        return f"Over {fewest} to {most} scoring networks"
    if fewest == 1:
        return "Given one scoring network"
    return f"Over {fewest} scoring networks"


_FEW = {1: "one seed", 2: "two seeds"}
"""From so few a bracket is said, and not concluded."""


def bracket_words(bracket: Bracket) -> str:
    """A redundancy: ``80% to 90%``, ``at least 90%``, ``less than 50%``.

    One that rests on fewer than three seeds (or scoring networks, where there are several) says so:
    ``at least 90% (one seed: not concluded)``.
    """
    few = _FEW.get(bracket.num_seeds)
    return f"{_bracket_ends(bracket)} ({few}: not concluded)" if few else _bracket_ends(bracket)


def _bracket_ends(bracket: Bracket) -> str:
    if bracket.at_least:
        return f"at least {percent(bracket.low)}"
    if bracket.passed_at is not None:
        return f"{percent(bracket.low)} to {percent(bracket.high)}"
    if bracket.most_kept < 1:
        gap = percent(1 - bracket.most_kept)
        return f"less than {percent(bracket.high)} (0% or {gap} and more: it leaves {gap} out)"
    return f"less than {percent(bracket.high)}"
