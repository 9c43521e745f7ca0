"""Findings are what the intervals carry and nothing more, against scipy on the table itself."""

import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from raygrad.report.figures.gain import gain_figure
from raygrad.report.findings import comparisons, findings, needs
from raygrad.report.intervals import mean_interval
from raygrad.report.results import Panel, Point, panels_of, trials_of
from tests.report import study

NUM_TEST = 360


@pytest.fixture(scope="module")
def table(run_folder):
    return pq.read_table(run_folder / "sweep" / "results.parquet").to_pandas()


@pytest.fixture(scope="module")
def panels(run_folder):
    results = pq.read_table(run_folder / "sweep" / "results.parquet")
    return panels_of(trials_of(results), dict.fromkeys(study.NETWORKS, NUM_TEST))


def accuracies(table, network, protocol, method, fraction):
    if fraction == 1.0:
        rows = table[(table.network == network) & (table.keep_fraction == 1.0)]
    else:
        rows = table[
            (table.network == network)
            & (table.protocol == protocol)
            & (table.method == method)
            & (table.keep_fraction == fraction)
        ]
    return rows.sort_values("seed").test_accuracy.to_numpy()


def welch(a, b, confidence):
    """Welch's interval by scipy's quantile, with the variance of rounding as its least."""
    least = (1 / NUM_TEST) ** 2 / 12
    u, v = (max(x.var(ddof=1), least) / len(x) for x in (a, b))
    df = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    half = stats.t.ppf(0.5 + confidence / 2, df) * np.sqrt(u + v)
    return a.mean() - b.mean() - half, a.mean() - b.mean() + half


def test_comparisons_with_random_are_simultaneous_welch_intervals(table, panels):
    for panel in panels:
        got = comparisons(panel)
        assert len(got) == 12
        for c in got:
            a = accuracies(table, panel.network, panel.protocol, c.method, c.keep_fraction)
            b = accuracies(table, panel.network, panel.protocol, "random", c.keep_fraction)
            expected = welch(a, b, 1 - 0.05 / 12)
            assert (c.gain.low, c.gain.high) == pytest.approx(expected, abs=1e-9)
            assert c.better == (expected[0] > 0)
            assert c.worse == (expected[1] < 0)


def test_needs_are_the_fractions_that_the_intervals_settle(table, panels):
    for panel in panels:
        full = accuracies(table, panel.network, "", "", 1.0)
        for need in needs(panel):
            fractions = sorted(study.FRACTIONS)[:-1]
            gaps = [
                welch(
                    accuracies(table, panel.network, panel.protocol, need.method, f),
                    full,
                    1 - 0.05 / 16,
                )
                for f in fractions
            ]
            good = [low >= -0.005 for low, _ in gaps]
            enough = next((f for i, f in enumerate(fractions) if all(good[i:])), None)
            bad = [f for f, (_, high) in zip(fractions, gaps, strict=True) if high < -0.005]
            assert need.enough == enough
            assert need.too_little == (max(bad) if bad else None)


def test_the_sentences_say_the_verdicts_of_the_comparisons(panels):
    """Each method and fraction named as better or worse is, and none that is goes unnamed."""
    found = findings(panels)
    for panel in panels:
        texts = [
            f.text for f in found if (f.network, f.protocol) == (panel.network, panel.protocol)
        ]
        compared = comparisons(panel)
        for start, chosen in (
            ("Better", [c for c in compared if c.better]),
            ("Worse", [c for c in compared if c.worse]),
        ):
            text = next((t for t in texts if t.startswith(start)), "")
            named = {
                (method, float(number) / 100)
                for method, fractions in re.findall(r"(\w+) at ([\d.%, and]+) \(by", text)
                for number in re.findall(r"([\d.]+)%", fractions)
            }
            assert named == {(c.method, c.keep_fraction) for c in chosen}
        assert any(c.better for c in compared) != any(t.startswith("No method") for t in texts)


def point(fraction, values):
    seeds = tuple((seed,) for seed in range(len(values)))
    return Point(fraction, seeds, tuple(values), mean_interval(values), 1.0)


def panel_of(curves, full):
    return Panel(
        "cnn",
        "equal_epochs",
        {
            name: tuple(point(f, v) for f, v in sorted(rows.items()))
            for name, rows in curves.items()
        },
        point(1.0, full),
    )


def test_a_clear_case_reads_as_the_study_would_say_it():
    noise = np.array([-0.0004, 0.0, 0.0004])
    panel = panel_of(
        {
            "random": {0.05: 0.90 + noise, 0.12: 0.98 + noise, 0.3: 0.98 + noise},
            "max_gradient": {0.05: 0.98 + noise, 0.12: 0.98 + noise, 0.3: 0.98 + noise},
        },
        0.98 + noise,
    )
    first, second = findings([panel])
    assert first.text == (
        "Data needed to come within 0.5 points of full accuracy (98.00%): "
        "max_gradient at most 5%; random more than 5% and at most 12%."
    )
    assert second.text.startswith(
        "Better than random beyond the intervals: max_gradient at 5% (by 8.00 points"
    )


def test_one_seed_concludes_nothing():
    panel = panel_of({"random": {0.1: [0.5]}, "max_gradient": {0.1: [0.9]}}, [0.95])
    (only,) = findings([panel])
    assert not only.shown
    assert "no interval" in only.text


def test_noise_alone_seldom_makes_a_finding():
    """Methods that draw from one distribution are told apart in at most about 5% of studies."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        curves = {
            name: {f: rng.normal(0.8, 0.02, 3) for f in (0.01, 0.1, 0.3)}
            for name in ("random", "a", "b", "c")
        }
        compared = comparisons(panel_of(curves, rng.normal(0.8, 0.02, 3)))
        wrong += any(c.better or c.worse for c in compared)
    assert wrong / 300 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_seeds_that_agree_without_a_known_test_set_show_nothing():
    """An old run folder does not say how many test examples there were."""
    panel = panel_of({"random": {0.1: [0.8, 0.8]}, "max_gradient": {0.1: [0.81, 0.81]}}, [0.9, 0.9])
    (only,) = findings([panel])
    assert not only.shown
    assert "no interval" in only.text


def test_a_verdict_on_some_methods_names_those_that_it_leaves_out():
    """One seed of a method is no evidence, neither for it nor against it."""
    panel = panel_of(
        {
            "random": {0.1: [0.80, 0.82, 0.81]},
            "max_gradient": {0.1: [0.81, 0.80, 0.82]},
            "gradient_cdf": {0.1: [0.95]},
            "forgetting": {0.3: [0.9, 0.91, 0.92]},
        },
        [0.95],
    )
    (text,) = (f.text for f in findings([panel]) if "beats" in f.text)
    assert text == (
        "No method beats random beyond its interval, at 10% of the data. "
        "Not compared, without seeds enough beside random's: forgetting and gradient_cdf."
    )


def test_one_method_measured_at_a_few_fractions_is_judged_at_those_only():
    rng = np.random.default_rng(1)
    panel = panel_of(
        {
            "random": {f: rng.normal(0.8, 0.01, 3) for f in (0.01, 0.1, 0.3)},
            "max_gradient": {0.1: rng.normal(0.8, 0.01, 3)},
        },
        [0.9],
    )
    (text,) = (f.text for f in findings([panel]))
    assert "at 10% of the data" in text
    assert "1%" not in text.replace("10%", "")


def test_random_alone_with_one_seed_is_told_that_seeds_are_missing():
    """Random is there and so is the full data: what is missing is a second seed."""
    panel = panel_of({"random": {0.1: [0.8]}, "max_gradient": {0.1: [0.8, 0.9]}}, [0.95])
    (only,) = findings([panel])
    assert not only.shown
    assert "no interval" in only.text
    assert "takes random" not in only.text


def test_several_networks_are_each_judged_by_their_own_trials():
    """What one network shows is said of that one, and not of another that shows nothing."""
    noise = np.array([-0.0004, 0.0, 0.0004])
    clear = panel_of({"random": {0.1: 0.8 + noise}, "max_gradient": {0.1: 0.9 + noise}}, [0.95])
    unclear = panel_of({"random": {0.1: [0.7, 0.9]}, "max_gradient": {0.1: [0.8, 0.9]}}, [0.95])
    found = findings([clear, replace(unclear, network="vgg")])
    assert [(f.network, f.shown) for f in found] == [("cnn", True), ("vgg", False)]


def test_no_captions_loss_is_a_gain():
    """Where every method gains, the caption speaks of the smallest gain."""
    noise = np.array([-0.001, 0.0, 0.001])
    panel = panel_of(
        {"random": {0.1: 0.8 + noise}, "a": {0.1: 0.9 + noise}, "b": {0.1: 0.85 + noise}}, [0.95]
    )
    assert "Largest gain +10.00 points (a at 10%), smallest gain +5.00 points (b" in (
        gain_figure([panel]).caption
    )
    worse = panel_of({"random": {0.1: [0.9]}, "a": {0.1: [0.8]}, "b": {0.1: [0.7]}}, [0.95])
    assert "Smallest loss -10.00 points (a at 10%), largest loss -20.00 points (b" in (
        gain_figure([worse]).caption
    )
