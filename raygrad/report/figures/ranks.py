"""Curves over the hardest k examples, for all k: shared drawing of entropy and overlap."""

from collections.abc import Mapping

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from raygrad.report.style import MUTED, Layout, SeriesStyle, as_text, new_figure, series_styles
from raygrad.report.wording import count

_POINTS = 300


def sampled_ranks(size: int) -> np.ndarray:
    """At most 300 values of k from 1 to ``size``, evenly on a logarithmic axis, int64.

    A curve over a million ks has no more to show on paper, and none of the values is altered.
    """
    spread = np.geomspace(1, size, min(size, _POINTS))
    return np.unique(np.concatenate([spread.round().astype(np.int64), [1, size]]))


def rank_axis(axes: Axes, size: int) -> None:
    """A logarithmic axis of k, from 1 to ``size``."""
    axes.set_xscale("log")
    axes.set_xlim(1, size)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(round(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("the k hardest examples")


def end_labels(axes: Axes, ends: Mapping[str, float], styles: Mapping[str, SeriesStyle]) -> None:
    """Names the curves at their right ends, moved apart where they would overlap.

    Args:
        axes: Where the curves are; their limits must be set.
        ends: The place of each name on the y axis, in data units.
        styles: The curves' styles.
    """
    low, high = axes.get_ylim()
    step = 0.075 * (high - low)
    places: dict[str, float] = {}
    for name, y in sorted(ends.items(), key=lambda item: item[1]):
        places[name] = max(y, max(places.values(), default=low - step) + step)
    # What was pushed past the top is moved back down as one.
    excess = max(0.0, max(places.values(), default=low) - high + 0.3 * step)
    for name, y in places.items():
        axes.annotate(
            as_text(name),
            (1.0, y - excess),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=styles[name].color if name in styles else MUTED,
            annotation_clip=False,
        )


def draw_rank_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    baselines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ylabel: str,
    layout: Layout,
) -> matplotlib.figure.Figure:
    """One axis of curves over k, with dashed baselines in grey.

    Args:
        curves: k and value of each curve, by name.
        baselines: The same for the baselines.
        ylabel: What the values are.
        layout: Width.
    """
    styles = series_styles(curves)
    figure = new_figure(layout, 3.2 if layout.columns > 1 else 2.9)
    ax = figure.add_subplot()
    for k, value in baselines.values():
        ax.plot(k, value, color=MUTED, linestyle=(0, (4, 2)), linewidth=1.1)
    for name, (k, value) in curves.items():
        ax.plot(k, value, color=styles[name].color, linestyle=styles[name].dash)
    rank_axis(ax, max(int(k[-1]) for k, _ in curves.values()))
    ax.set_ylim(bottom=0)
    ax.set_ylabel(ylabel)
    everything = {**baselines, **curves}
    if layout.columns > 1:
        end_labels(ax, {n: float(v[-1]) for n, (_, v) in everything.items()}, styles)
    else:
        handles = [
            ax.plot(
                [],
                [],
                color=styles[n].color if n in styles else MUTED,
                linestyle=styles[n].dash if n in styles else (0, (4, 2)),
            )[0]
            for n in everything
        ]
        named = [as_text(name) for name in everything]
        figure.legend(handles, named, loc="outside upper left", ncols=1)
    return figure
