"""Simplicity and redundancy of a panel: the definitions of the selection floor, on its curves."""

from raygrad.report.results import BASELINE, FULL, Panel
from raygrad.selection.attributes import Attributes, curve_attributes


def attributes(panel: Panel) -> Attributes | None:
    """Simplicity and redundancy by one panel.

    None where random and the full data share no seed, or all the data teach no more than a guess.
    A replicate's values at all fractions that it has are a curve; the interval of simplicity is
    over means per scoring network where there are several.

    Args:
        panel: Curves of one network and protocol.
    """
    if panel.full is None or not panel.learned:
        return None
    full = dict(zip(panel.full.seeds, panel.full.values, strict=True))
    groups = dict(zip(panel.full.seeds, panel.full.score_seeds, strict=False))
    curves: dict[str, dict[tuple[int, ...], dict[float, float]]] = {}
    for name, points in panel.curves.items():
        for point in points:
            for seed, value in zip(point.seeds, point.values, strict=True):
                if seed in full:
                    curve = curves.setdefault(name, {}).setdefault(seed, {FULL: full[seed]})
                    curve[point.keep_fraction] = value
    return curve_attributes(curves, groups=groups) if BASELINE in curves else None
