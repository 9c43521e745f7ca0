"""Points of several methods at one share, on an axis whose upper end can be read."""

import itertools

import numpy as np
import pytest

from raygrad.report.figures.curves import (
    Curve,
    accuracy_axis,
    accuracy_ends,
    beside,
    draw_curve,
    far_apart,
)
from raygrad.report.style import WIDE, drawing, panels, series_styles


def curve(means, lows=None, highs=None):
    none = [float("nan")] * len(means)
    return Curve([0.1, 0.3][: len(means)], means, lows or none, highs or none)


def test_a_tenth_of_the_error_is_the_same_way_everywhere_on_the_axis():
    with drawing():
        _, (ax,) = panels(WIDE, 1)
        accuracy_axis(ax, [curve([50, 99.9])], 1e-4)
        at = [ax.transData.transform((0.5, v))[1] for v in (90, 99, 99.9)]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], rel=1e-6)
    assert at[0] < at[1]


@pytest.mark.parametrize("means", [[97.0, 99.2], [100.0, 100.0], [0.0, 5.0], [88.0, 88.0]])
def test_every_value_is_on_the_axis(means):
    bottom, top = accuracy_ends([curve(means)], 1 / 360)
    assert 0 <= bottom <= min(means)
    assert max(means) <= top + 50 / 360
    with drawing():
        _, (ax,) = panels(WIDE, 1)
        accuracy_axis(ax, [curve(means)], 1 / 360)
        ticks = [t for t in ax.get_yticks() if bottom <= t <= top]
        places = sorted(
            ax.transAxes.inverted().transform(ax.transData.transform((0, t)))[1] for t in ticks
        )
    assert ticks
    assert all(b - a > 0.08 for a, b in itertools.pairwise(places))


def test_an_interval_to_100_does_not_take_the_axis():
    wide = curve([98.0, 98.5], lows=[60.0, 97.0], highs=[100.0, 99.0])
    bottom, top = accuracy_ends([wide], 1e-4)
    assert bottom == 58
    assert top == pytest.approx(100 - 1.5 / 2.5)


def test_the_axis_ends_soon_above_what_is_drawn():
    """At chance level too, where 2.5 times less error than the least would be most of the axis."""
    low = curve([12.0, 25.0], lows=[9.0, 22.0], highs=[15.0, 29.0])
    bottom, top = accuracy_ends([low], 1e-4)
    assert bottom == 7
    assert 29 < top < 32


def test_series_at_one_share_stand_apart_and_around_it():
    with drawing():
        _, (ax,) = panels(WIDE, 1)
        ax.set_xlim(0, 1)
        for count in (1, 2, 4, 9):
            at = [beside(ax, i, count).transform((0.5, 0.0))[0] for i in range(count)]
            assert np.mean(at) == pytest.approx(ax.transData.transform((0.5, 0))[0])
            assert all(b - a >= 1 for a, b in itertools.pairwise(at))


def test_lines_are_dashed_where_nothing_was_measured_between():
    assert not far_apart(0.01, 0.03)
    assert not far_apart(0.1, 0.3)
    assert far_apart(0.2, 1.0)
    assert far_apart(0.3, 1.0)
    assert far_apart(0.001, 0.01)
    style = series_styles(["max_gradient"])["max_gradient"]
    shares = [0.01, 0.03, 0.2, 0.3, 1.0]
    with drawing():
        _, (ax,) = panels(WIDE, 1)
        draw_curve(
            ax,
            Curve(shares[:4], [1.0] * 4, [0.9] * 4, [1.1] * 4, (), (1.0, 1.0)),
            style,
            ax.transData,
        )
        dashed = {
            tuple(line.get_xdata()): line.get_linestyle() == "--"
            for line in ax.lines
            if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"
        }
    expected = {pair: far_apart(*pair) for pair in itertools.pairwise(shares)}
    assert dashed == expected
