from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import integrate, stats

from raygrad.report.attributes import attributes
from raygrad.report.figures.attributes import attributes_figure
from raygrad.report.intervals import mean_interval
from raygrad.report.results import Panel, Point, panels_of, trials_of
from raygrad.report.wording import bracket_words
from raygrad.selection.attributes import attributes as selection_attributes

NOISE = np.array([-0.0004, 0.0, 0.0004])


def point(fraction, values):
    seeds = tuple((seed,) for seed in range(len(values)))
    return Point(fraction, seeds, tuple(values), mean_interval(values), 1.0)


def points(rows):
    return tuple(point(f, v) for f, v in sorted(rows.items()))


def panel(curves, full):
    return Panel(
        "cnn",
        "equal_epochs",
        {name: points(rows) for name, rows in curves.items()},
        point(1.0, full),
    )


def test_simplicity_is_the_area_under_the_relative_curve_over_the_log_fraction():
    """Against scipy's quadrature of the same piecewise curve, seed by seed."""
    rng = np.random.default_rng(0)
    fractions = np.array([0.004, 0.02, 0.1, 0.5])
    rows = {f: 0.5 + 0.4 * f**0.3 + rng.normal(0, 0.01, 3) for f in fractions}
    full = 0.9 + rng.normal(0, 0.01, 3)
    found = attributes(panel({"random": rows}, full))
    assert found.simplicity_from == 0.01
    areas = []
    for s in range(3):
        y = np.array([rows[f][s] for f in fractions] + [full[s]]) / full[s]
        x = np.log([*fractions, 1.0])
        area = integrate.quad(
            lambda t, x=x, y=y: np.interp(t, x, y), np.log(0.01), 0, points=x[1:-1], epsabs=1e-12
        )
        areas.append(area[0] / np.log(100))
    low, high = stats.t.interval(0.95, 2, np.mean(areas), stats.sem(areas))
    got = found.simplicity
    assert (got.mean, got.low, got.high) == pytest.approx((np.mean(areas), low, high), abs=1e-5)


def test_a_data_set_of_which_any_subset_teaches_all_has_simplicity_one():
    flat = panel({"random": {0.01: 0.9 + NOISE, 0.1: 0.9 + NOISE}}, 0.9 + NOISE)
    assert attributes(flat).simplicity.mean == pytest.approx(1.0)


RISES = {
    "random": {0.1: [0.9, 0.92, 0.91], 0.5: [0.97, 0.98, 0.975]},
    "max_gradient": {0.1: [0.97, 0.975, 0.97], 0.5: [0.98, 0.98, 0.98]},
}


def test_redundancy_is_a_bracket_between_measured_shares():
    """By hand, by means: 0.98167 on all data; max_gradient passes at 50% alone, random never."""
    found = attributes(panel(RISES, [0.98, 0.985, 0.98]))
    assert found.best_method == "max_gradient"
    best, random = found.redundancy["max_gradient"], found.redundancy["random"]
    assert (best.low, best.high, best.at_least) == (0.5, pytest.approx(0.9), False)
    assert (random.low, random.high) == (0.0, pytest.approx(0.5))
    assert found.gain.shown
    assert (bracket_words(best), bracket_words(random)) == ("50% to 90%", "less than 50%")


def test_what_every_share_shows_is_at_least_and_what_a_method_leaves_out_is_said():
    flat = dict.fromkeys((0.1, 0.5), 0.98 + NOISE)
    low = dict.fromkeys((0.1, 0.5), 0.5 + NOISE)
    found = attributes(
        panel({"random": flat, "max_gradient": flat, "non_extreme_max_gradient": low}, 0.98 + NOISE)
    )
    assert bracket_words(found.redundancy["random"]) == "at least 90%"
    assert found.best_method == "random"
    assert not found.gain.shown
    assert bracket_words(found.redundancy["non_extreme_max_gradient"]) == (
        "less than 50% (0% or 5% and more: it leaves 5% out)"
    )


def test_brackets_of_fewer_than_three_seeds_say_so_and_others_say_how_many():
    few = {name: {f: v[:1] for f, v in of.items()} for name, of in RISES.items()}
    found = attributes(panel(few, [0.98]))
    assert bracket_words(found.redundancy["max_gradient"]) == "50% to 90% (one seed: not concluded)"
    two = {name: {f: v[:2] for f, v in of.items()} for name, of in RISES.items()}
    text = attributes_figure({"digits": panel(two, [0.98, 0.985])}, "attributes")
    assert "by random less than 50% (two seeds: not concluded)" in text
    text = attributes_figure({"digits": panel(RISES, [0.98, 0.985, 0.98])}, "attributes")
    assert "by max_gradient 50% to 90% (n = 3), by random less than 50% (n = 3)." in text


def test_simplicity_stands_beside_its_protocol_its_epochs_and_its_scoring_networks():
    one = replace(panel(RISES, [0.98, 0.985, 0.98]), epochs=30)
    caption = attributes_figure({"digits": one, "again": one}, "attributes").caption
    alone = attributes_figure({"digits": one}, "attributes")
    assert isinstance(alone, str), "a plane with one dot"
    assert "digits (equal epochs, at most 30 epochs; given one scoring network): simplicity" in (
        caption
    )


def test_the_report_and_the_analysis_say_the_same_of_a_sweep(run_folder):
    """One definition: a panel of results gives what the selection floor makes of the rows."""
    results = pq.read_table(run_folder / "sweep" / "results.parquet")
    of_rows = selection_attributes(results.to_pydict())
    panels = panels_of(trials_of(results))
    assert {p.protocol for p in panels} == {"equal_epochs", "equal_steps"}
    for p in panels:
        assert attributes(p) == of_rows[p.network, p.protocol]


def test_a_seed_that_has_a_share_more_than_the_others_stands_beside_them(run_folder):
    """The curves are matched by seed: a share of one seed leaves the other seeds' curves whole."""
    results = pq.read_table(run_folder / "sweep" / "results.parquet")
    rows = results.to_pylist()
    first = next(r for r in rows if r["method"] == "random" and r["keep_fraction"] < 1)
    last = max(r["seed"] for r in rows)
    more = [r for r in rows if r["seed"] == last and r["keep_fraction"] == first["keep_fraction"]]
    results = pa.concat_tables(
        [results, pa.Table.from_pylist([r | {"keep_fraction": 0.9} for r in more], results.schema)]
    )
    of_rows = selection_attributes(results.to_pydict())
    for p in panels_of(trials_of(results)):
        assert attributes(p) == of_rows[p.network, p.protocol]
        assert attributes(p).simplicity.num_seeds > 1


def test_without_the_full_data_there_are_no_attributes():
    p = Panel("cnn", "equal_epochs", {"random": points({0.1: 0.9 + NOISE})}, None)
    assert attributes(p) is None
