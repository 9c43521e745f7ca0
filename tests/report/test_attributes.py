import numpy as np
import pytest
from scipy import integrate, stats

from raygrad.report.attributes import attributes, simplicity
from raygrad.report.intervals import mean_interval
from raygrad.report.results import Panel, Point

NOISE = np.array([-0.0004, 0.0, 0.0004])


def points(rows):
    return tuple(Point(f, tuple(v), mean_interval(v), 1.0) for f, v in sorted(rows.items()))


def panel(curves, full):
    return Panel(
        "cnn",
        "equal_epochs",
        {name: points(rows) for name, rows in curves.items()},
        Point(1.0, tuple(full), mean_interval(full), 1.0),
    )


def test_simplicity_is_the_area_under_the_relative_curve_over_the_log_fraction():
    """Against scipy's quadrature of the same piecewise curve, seed by seed."""
    rng = np.random.default_rng(0)
    fractions = np.array([0.004, 0.02, 0.1, 0.5])
    rows = {f: 0.5 + 0.4 * f**0.3 + rng.normal(0, 0.01, 3) for f in fractions}
    full = 0.9 + rng.normal(0, 0.01, 3)
    got, start = simplicity(points(rows), panel({}, full).full)
    assert start == 0.01
    areas = []
    for s in range(3):
        y = np.array([rows[f][s] for f in fractions] + [full[s]]) / full[s]
        x = np.log([*fractions, 1.0])
        area = integrate.quad(
            lambda t, x=x, y=y: np.interp(t, x, y), np.log(0.01), 0, points=x[1:-1], epsabs=1e-12
        )
        areas.append(area[0] / np.log(100))
    low, high = stats.t.interval(0.95, 2, np.mean(areas), stats.sem(areas))
    assert (got.mean, got.low, got.high) == pytest.approx((np.mean(areas), low, high), rel=1e-6)


def test_a_data_set_of_which_any_subset_teaches_all_has_simplicity_one():
    flat = panel({"random": {0.01: 0.9 + NOISE, 0.1: 0.9 + NOISE}}, 0.9 + NOISE)
    assert attributes(flat).simplicity.mean == pytest.approx(1.0)


def test_redundancy_is_what_the_best_method_leaves_out_with_the_findings_bounds():
    p = panel(
        {
            "random": {0.05: 0.90 + NOISE, 0.12: 0.92 + NOISE, 0.3: 0.98 + NOISE},
            "max_gradient": {0.05: 0.90 + NOISE, 0.12: 0.98 + NOISE, 0.3: 0.98 + NOISE},
        },
        0.98 + NOISE,
    )
    a = attributes(p)
    assert a.best == "max_gradient"
    assert (a.redundancy.estimate, a.redundancy.low, a.redundancy.high) == (0.88, 0.88, 0.95)
    assert a.random_redundancy.estimate == 0.7


def test_noise_widens_the_bounds_and_no_enough_leaves_nothing_for_sure():
    wide = np.array([-0.02, 0.0, 0.02])
    a = attributes(panel({"random": {0.1: 0.97 + wide, 0.5: 0.98 + wide}}, 0.98 + wide))
    assert a.redundancy.estimate == 0.5
    assert (a.redundancy.low, a.redundancy.high) == (0.0, 1.0)


def test_without_the_full_data_there_are_no_attributes():
    p = Panel("cnn", "equal_epochs", {"random": points({0.1: 0.9 + NOISE})}, None)
    assert attributes(p) is None
