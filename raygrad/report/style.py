"""How every picture of the report looks: colours, markers, sizes, and the two ways it is saved.

The series colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with
any of the common kinds of colour blindness tell apart; a marker and a dash pattern say the same.
"""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullLocator

INK = "#1f2328"
MUTED = "#656d76"
RULE = "#d8dee4"
PAPER = "#ffffff"

VERMILLION = "#d55e00"
BLUE = "#0072b2"
GREEN = "#009e73"
PURPLE = "#cc79a7"
ORANGE = "#e69f00"
SKY = "#56b4e9"

# What a colour of a figure becomes in the page, where it follows the light or the dark theme.
THEME: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    VERMILLION: "--vermillion",
    BLUE: "--blue",
    GREEN: "--green",
    PURPLE: "--purple",
    ORANGE: "--orange",
    SKY: "--sky",
}

_PLAIN_DECADES = 2.7  # over more of them, plain numbers would run into each other

Dash = Any  # what matplotlib takes as a linestyle; its own type differs between versions


@dataclass(frozen=True)
class SeriesStyle:
    """The look of one series: a colour, a marker and a dash pattern, each enough on its own."""

    color: str
    marker: str
    dash: Dash


_PAPER_METHODS: Mapping[str, SeriesStyle] = {
    "random": SeriesStyle(MUTED, "o", "-"),
    "max_gradient": SeriesStyle(VERMILLION, "^", "-"),
    "non_extreme_max_gradient": SeriesStyle(PURPLE, "s", "-"),
    "gradient_cdf": SeriesStyle(BLUE, "D", "-"),
}
_CYCLE: tuple[tuple[str, str], ...] = (
    (BLUE, "o"),
    (VERMILLION, "^"),
    (GREEN, "v"),
    (PURPLE, "s"),
    (ORANGE, "P"),
    (SKY, "X"),
)
_DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1, 1.5)))


def series_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """A style for each name; the paper's four methods come first and always get the same.

    Args:
        names: Names of series, in any order; the result does not depend on their order.
    """
    known = sorted(set(names))
    styles = {name: style for name, style in _PAPER_METHODS.items() if name in known}
    taken = {style.color for style in styles.values()}
    free = [item for item in _CYCLE if item[0] not in taken] or list(_CYCLE)
    rest = [name for name in known if name not in styles]
    for i, name in enumerate(rest):
        color, marker = free[i % len(free)]
        styles[name] = SeriesStyle(color, marker, _DASHES[(i // len(free)) % len(_DASHES)])
    return styles


@dataclass(frozen=True)
class Layout:
    """The width a figure is drawn for: a page, or a phone and one column of a paper.

    Attributes:
        name: ``"wide"`` or ``"narrow"``.
        width_in: Width in inches.
        columns: The most panels side by side.
    """

    name: str
    width_in: float
    columns: int


WIDE = Layout("wide", 7.6, 3)
NARROW = Layout("narrow", 3.6, 1)

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.2,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "raygrad",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw inside this, so that a figure looks the same whatever matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(layout: Layout, height_in: float, arranged: bool = True) -> Figure:
    """An empty figure of the layout's width; it never touches pyplot's global state.

    Args:
        layout: Width.
        height_in: Height in inches.
        arranged: Whether axes are arranged to fit their labels, or placed by the caller.
    """
    engine = ConstrainedLayoutEngine() if arranged else None
    figure = Figure(figsize=(layout.width_in, height_in), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def panels(layout: Layout, count: int, panel_height_in: float = 2.7) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes, as many side by side as the layout allows.

    Args:
        layout: Width and the most columns.
        count: Number of axes, at least 1.
        panel_height_in: Height of one row in inches.
    """
    rows = -(-count // layout.columns)
    columns = -(-count // rows)  # four panels stand as two by two, not as three and one
    figure = new_figure(layout, panel_height_in * rows)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def as_text(name: str) -> str:
    """A name for a drawing as it is; between two ``$`` matplotlib would draw it as mathematics.

    For every class, run, network, method and score that is handed to matplotlib; what shortens or
    breaks a name comes before.

    Args:
        name: From the data or its user.
    """
    return name.replace("$", r"\$")


def plain_log(axis: Axis) -> None:
    """Labels a logarithmic axis with a few plain numbers, or powers of ten where it spans many.

    Call it when everything is drawn: what is drawn decides.
    """
    low, high = axis.get_view_interval()
    if math.log10(high / low) > _PLAIN_DECADES:
        axis.set_major_locator(LogLocator(numticks=7))
        axis.set_major_formatter(LogFormatterMathtext())
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Rendered:
    """A figure as files: PNG and SVG for the width of a page, and the SVG of a phone's width."""

    png: bytes
    wide_svg: str
    narrow_svg: str


def _arranged(figure: Figure) -> Figure:
    # The layout is solved once here, not again for every format; a figure that has an engine, even
    # one that does nothing, is drawn twice for each file.
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    return figure


def _png_bytes(figure: Figure, dpi: int = 200) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


def _svg_text(figure: Figure) -> str:
    # Live text instead of outlines: it can be searched and edited. Where its font is not
    # installed, a reader's program takes the next of these.
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    fonts = "'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif"
    return re.sub(r"'DejaVu Sans'(, [^;\"]*)?", fonts, out.getvalue())


def render(draw: Callable[[Layout], Figure], phone: bool = True) -> Rendered:
    """Draws a figure in both widths, on white; the same figure gives the same bytes.

    Args:
        draw: Draws it for a layout.
        phone: Whether the page shows the drawing, and so needs it in a phone's width too.
    """
    with drawing():
        wide = _arranged(draw(WIDE))
        png, wide_svg = _png_bytes(wide), _svg_text(wide)
        return Rendered(png, wide_svg, _svg_text(_arranged(draw(NARROW))) if phone else "")
