"""The legend of methods above a figure's panels, whatever the number and length of their names."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raygrad.report.style import Layout, SeriesStyle, as_text

_CHARACTERS_PER_INCH = {"wide": 12.5, "narrow": 14.2}
_FONT_PT = {"wide": 8.5, "narrow": 7.5}
_LINE_LENGTH = {"wide": 2.6, "narrow": 1.9}
_LINE_CHARACTERS = {"wide": 6, "narrow": 5}
"""What the drawn line and the gap beside a name take."""
_FREE_LINES = 2
"""Lines for which a panel's height has room."""
_LINE_IN = 0.18


def _width(sizes: Sequence[int], columns: int) -> int:
    """Characters that a legend is wide whose entries stand column by column, as matplotlib's do."""
    return sum(max(of) for of in _by_column(sizes, columns))


def _by_column(sizes: Sequence[int], columns: int) -> list[Sequence[int]]:
    each, longer = divmod(len(sizes), columns)
    ends = list(itertools.accumulate(each + (i < longer) for i in range(columns)))
    return [sizes[a:b] for a, b in itertools.pairwise([0, *ends])]


def method_legend(figure: Figure, layout: Layout, styles: Mapping[str, SeriesStyle]) -> None:
    """The methods' legend above the panels, in as many columns as there is room for.

    Names that are longer than the figure is wide are broken, and the figure becomes higher by what
    a long legend takes, so that its panels keep their size.
    """
    if not styles:
        return
    handles = [
        Line2D([], [], color=s.color, marker=s.marker, linestyle=s.dash, markeredgecolor="none")
        for s in styles.values()
    ]
    room = int(layout.width_in * _CHARACTERS_PER_INCH[layout.name])
    line = _LINE_CHARACTERS[layout.name]
    names = [textwrap.fill(name, room - line) for name in styles]
    sizes = [max(map(len, name.splitlines())) + line for name in names]
    columns = max((n for n in range(1, len(sizes) + 1) if _width(sizes, n) <= room), default=1)
    lines = max(map(sum, _by_column([name.count("\n") + 1 for name in names], columns)))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + _LINE_IN * max(0, lines - _FREE_LINES))
    figure.legend(
        handles,
        [as_text(name) for name in names],
        loc="outside upper left",
        ncols=columns,
        fontsize=_FONT_PT[layout.name],
        handlelength=_LINE_LENGTH[layout.name],
        columnspacing=1.4,
        borderaxespad=0.2,
    )
