"""Data sets on the plane of the paper's two attributes, simplicity and redundancy."""

from collections.abc import Mapping
from html import escape

import matplotlib.figure
import numpy as np
import pyarrow as pa

from raygrad.report.attributes import attributes
from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.legend import method_legend
from raygrad.report.findings import MARGIN
from raygrad.report.results import BASELINE, Panel
from raygrad.report.style import Layout, new_figure, series_styles
from raygrad.report.wording import bracket_words, percent, protocol_words, scope
from raygrad.selection.attributes import Attributes, Bracket, Estimate


def attributes_table(found: Mapping[str, Attributes]) -> pa.Table:
    """One row a run or panel: both attributes with their bounds, and random's redundancy.

    A redundancy lies between ``_low`` and ``_high``; one whose ``_high`` is 1 is at least ``_low``.
    """
    return pa.Table.from_pylist(
        [
            {
                "name": name,
                "simplicity": a.simplicity.mean,
                "simplicity_low": a.simplicity.low,
                "simplicity_high": a.simplicity.high,
                "simplicity_from": a.simplicity_from,
                "redundancy_low": a.redundancy[a.best_method].low,
                "redundancy_high": a.redundancy[a.best_method].high,
                "redundancy_num_seeds": a.redundancy[a.best_method].num_seeds,
                "best_method": a.best_method,
                "random_redundancy_low": a.redundancy[BASELINE].low,
                "random_redundancy_high": a.redundancy[BASELINE].high,
                "random_redundancy_num_seeds": a.redundancy[BASELINE].num_seeds,
                "gain_low": a.gain.low,
                "gain_high": a.gain.high,
                "gain_shown": a.gain.shown,
                "num_seeds": a.simplicity.num_seeds,
            }
            for name, a in found.items()
        ]
    )


def _draw(found: Mapping[str, Attributes], layout: Layout) -> matplotlib.figure.Figure:
    styles = series_styles(found)
    figure = new_figure(layout, 3.4)
    ax = figure.add_subplot()
    for name, a in found.items():
        x, y = a.simplicity, a.redundancy[a.best_method]
        # The marker stands at what was shown to be dispensable, the bar reaches to what was not.
        ax.errorbar(
            100 * x.mean,
            100 * y.low,
            xerr=_bars(x),
            yerr=100 * np.array([[0.0], [y.high - y.low]]),
            lolims=y.at_least,
            color=styles[name].color,
            marker=styles[name].marker,
            markersize=6,
            linewidth=1.0,
        )
    lowest = min(
        100 * (a.simplicity.low if a.simplicity.known else a.simplicity.mean)
        for a in found.values()
    )
    ax.set_xlim(max(0.0, lowest - 15), 102)
    ax.set_ylim(-2, 102)
    ax.set_xlabel("simplicity (%)")
    ax.set_ylabel("redundancy (%)")
    method_legend(figure, layout, styles)
    return figure


def _bars(estimate: Estimate) -> np.ndarray | None:
    """Lengths of the error bars down and up, in percent; none with one seed."""
    if not estimate.known:
        return None
    ends = (estimate.mean - estimate.low, estimate.high - estimate.mean)
    return 100 * np.maximum(0.0, ends).reshape(2, 1)


def _sentence(name: str, a: Attributes, panel: Panel) -> str:
    x = a.simplicity
    band = f" ({100 * x.low:.1f} to {100 * x.high:.1f})" if x.known else ""
    words = protocol_words(panel.protocol)
    # A panel's own name says its protocol; a run's does not.
    protocol = " (" if words in name else f" ({words}, "
    epochs = f"at most {panel.epochs} epochs" if panel.epochs is not None else "epochs not known"
    text = (
        f"{name}{protocol}{epochs}; {scope(*panel.score_network_counts).lower()}): "
        f"simplicity {100 * x.mean:.1f}%{band}; "
        f"redundancy by {a.best_method} {_bracket_words(a.redundancy[a.best_method])}"
    )
    if a.best_method == BASELINE:
        return f"{text}; no other method passes at a smaller share."
    text = f"{text}, by {BASELINE} {_bracket_words(a.redundancy[BASELINE])}"
    return f"{text}." if a.gain.shown else f"{text}, brackets that overlap."


def _bracket_words(bracket: Bracket) -> str:
    """A bracket with the fewest seeds that its means are over."""
    few = bracket.num_seeds < 3
    return bracket_words(bracket) if few else f"{bracket_words(bracket)} (n = {bracket.num_seeds})"


def attributes_figure(panels: Mapping[str, Panel], name: str) -> Drawn | str:
    """Each run or panel as a point: how simple its data set is, and how redundant.

    A plane takes two points at least; of one, the page says its numbers.

    Args:
        panels: Curves by the name that each point gets.
        name: The figure's name.
    """
    title = "Simplicity and redundancy"
    found = {n: a for n, p in panels.items() if (a := attributes(p)) is not None}
    if not found:
        reason = f"It takes a sweep with {BASELINE} and with the full data."
        return Missing(name, title, reason)
    starts = sorted({a.simplicity_from for a in found.values()})
    sentences = " ".join(_sentence(n, a, panels[n]) for n, a in found.items())
    caption = (
        "Simplicity is the mean accuracy of random subsets relative to all the data, over the "
        f"logarithm of the share kept from {' or '.join(percent(s) for s in starts)} on. "
        f"Redundancy is the share that the best method leaves out within {100 * MARGIN:g} "
        "points of full accuracy by mean: between the last measured share that failed and the "
        "first that passed; nothing is read between them."
    )
    if len(found) == 1:
        return f'<h3>{title}</h3><p class="note">{escape(f"{caption} {sentences}")}</p>'
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} Bars: 95% along simplicity, the bracket along redundancy. {sentences}",
        alt=f"Plane of simplicity and redundancy. {sentences}",
        table=attributes_table(found),
        draw=lambda layout: _draw(found, layout),
    )
