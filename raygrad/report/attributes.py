"""Simplicity and redundancy of a panel: the definitions of the selection floor, on its curves."""

from raygrad.report.results import BASELINE, FULL, Panel
from raygrad.selection.attributes import Attributes, curve_attributes


def attributes(panel: Panel) -> Attributes | None:
    """Simplicity and redundancy by one panel; None without random, or without the full data.

    Values of a point are in order of the seeds, and a seed's values at all fractions are a curve.

    Args:
        panel: Curves of one network and protocol.
    """
    if not panel.curves.get(BASELINE) or panel.full is None:
        return None
    curves = {}
    for name, points in panel.curves.items():
        seeds = min(len(point.values) for point in (*points, panel.full))
        curves[name] = {
            seed: {p.keep_fraction: p.values[seed] for p in points}
            | {FULL: panel.full.values[seed]}
            for seed in range(seeds)
        }
    return curve_attributes(curves)
