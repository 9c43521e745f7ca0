"""What a figure is: a drawing with the numbers behind it, or the reason why it is not there."""

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.figure
import pyarrow as pa

from raygrad.report.style import Layout


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: File name without its ending, unique in a report.
        title: What is drawn, in a few words.
        caption: What to see in it, with its numbers.
        alt: The figure in a sentence or two for who cannot see it.
        table: The numbers behind it, written as CSV.
        draw: Draws it for a layout; called inside ``style.drawing``.
        markup: What the page shows in place of the drawing, such as images that can be clicked.
    """

    name: str
    title: str
    caption: str
    alt: str
    table: pa.Table
    draw: Callable[[Layout], matplotlib.figure.Figure]
    markup: str | None = None


@dataclass(frozen=True)
class Missing:
    """A figure that is left out.

    Attributes:
        name: The figure's name.
        title: What would have been drawn.
        reason: Why it is not, and what would bring it.
    """

    name: str
    title: str
    reason: str


Drawn = Figure | Missing
