import warnings

import pytest

from raygrad.report.figures.legend import method_legend
from raygrad.report.style import NARROW, WIDE, drawing, panels, series_styles

COLUMNS = ["loss", "el2n", "aum", "forgetting", "grad_l1_all", "grad_linf_last_layer_weights"]
MANY = [f"{m} ({c})" for m in ("ccs", "max_gradient", "non_extreme_max_gradient") for c in COLUMNS]


def boxes(names, layout):
    """The boxes of the panel (with its labels) and of the legend, and the figure's size, inches."""
    with drawing(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, [ax] = panels(layout, 1, 3.0)
        ax.set_ylabel("test accuracy (%)")
        ax.set_title("cnn")
        method_legend(figure, layout, series_styles(names))
        figure.draw_without_rendering()
    [legend] = figure.legends
    found = [box.transformed(figure.dpi_scale_trans.inverted()) for box in (
        ax.get_tightbbox(), legend.get_window_extent()
    )]  # fmt: skip
    return *found, figure.get_size_inches()


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=lambda layout: layout.name)
@pytest.mark.parametrize("count", [1, 4, 9, len(MANY)])
def test_a_legend_of_many_long_names_leaves_the_panels_their_room(layout, count):
    panel, legend, (width, height) = boxes(MANY[-count:], layout)
    assert legend.x0 >= 0
    assert legend.x1 <= width
    assert legend.y1 <= height
    assert panel.y1 <= legend.y0, "the legend stands above the panel"
    assert panel.height > 2.2


def test_a_short_legend_leaves_the_figure_as_it_was():
    _, _, size = boxes(["random", "max_gradient", "ccs"], WIDE)
    assert tuple(size) == (WIDE.width_in, 3.0)
