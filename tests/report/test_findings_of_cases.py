"""The sentences and verdicts of results that are made up, each to be one case."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raygrad.report.answer import answer
from raygrad.report.attributes import attributes
from raygrad.report.comparing import comparisons
from raygrad.report.figures.accuracy import accuracy_figure, scopes
from raygrad.report.figures.gain import gain_figure
from raygrad.report.findings import findings
from raygrad.report.intervals import mean_interval
from raygrad.report.results import Panel, Point, panels_of, summary_rows, trials_of
from raygrad.report.sheets import cost_sheets
from raygrad.report.tables import Run

NUM_TEST = 360


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
    texts = [f.text for f in findings([panel])]
    assert all(text.startswith("Given one scoring network: ") for text in texts)
    first, second, third, fourth = (text.partition(": ")[2] for text in texts)
    assert first == (
        "By mean test accuracy max_gradient is best at 5% (98.0%, 97.9 to 98.1; worst random "
        "90.0%, 89.9 to 90.1); every method is the same at 12% (98.0%, 97.9 to 98.1) and 30% "
        "(98.0%, 97.9 to 98.1); all the data 98.0%, 97.9 to 98.1."
    )
    assert second.startswith(
        "Better than random beyond the intervals: max_gradient at 5% (by 8.00 points"
    )
    assert third.startswith(
        "Not told apart from random, with the smallest true difference that four of five such "
        "sweeps would show: at 12% max_gradient (0."
    )
    assert fourth == (
        "Data needed to come within 0.5 points of full accuracy (98.00%): "
        "max_gradient at most 5%; random more than 5% and at most 12%."
    )


def test_the_answer_says_who_leads_where_and_whether_beyond_the_intervals():
    """In fewer words than the first finding, and with nothing that the intervals do not carry."""
    noise = np.array([-0.0004, 0.0, 0.0004])
    panel = panel_of(
        {
            "random": {0.01: 0.70 + noise, 0.02: 0.80 + noise, 0.05: 0.90 + noise},
            "max_gradient": {0.01: 0.40 + noise, 0.02: 0.50 + noise, 0.05: 0.93 + noise},
            "gradient_cdf": {0.01: 0.50 + noise, 0.02: 0.80 - noise / 2, 0.05: 0.91 + noise},
        },
        0.98 + noise,
    )
    assert answer(panel, comparisons(panel)) == (
        "random leads at 1% and 2% (every other method worse beyond the intervals at 1%) and "
        "max_gradient at 5% (93.0%, 92.9 to 93.1; better than random beyond the intervals); all "
        "the data give 98.0%, 97.9 to 98.1."
    )
    level = panel_of({"random": {0.1: 0.9 + noise}, "a": {0.1: 0.9001 + noise}}, 0.9 + noise)
    assert "(90.0%, 89.9 to 90.1; not shown to be better than random)" in answer(
        level, comparisons(level)
    )
    behind = {"random": {0.1: 0.9 + noise}, "a": {0.1: 0.8999 + noise}, "b": {0.1: 0.7 + noise}}
    level = panel_of(behind, 0.9 + noise)
    assert "; not every other method shown to be worse)" in answer(level, comparisons(level))
    one = panel_of({"random": {0.1: [0.5]}, "a": {0.1: [0.9]}}, [0.95])
    assert answer(one, comparisons(one)) == (
        "a leads at 10% (90.0%); all the data give 95.0%; "
        "with one seed a point nothing is concluded."
    )
    alone = panel_of({"random": {0.1: 0.9 + noise}}, 0.95 + noise)
    assert answer(alone, comparisons(alone)) is None


def test_a_leader_that_is_better_than_random_alone_is_not_said_to_lead_beyond_the_intervals():
    """The second is a hundredth of a point behind: what is beyond is the gain over random."""
    noise = np.array([-0.0004, 0.0, 0.0004])
    of = {"random": 0.801, "max_gradient": 0.9, "k_center": 0.8999}
    panel = panel_of({name: {0.1: mean + noise} for name, mean in of.items()}, 0.95 + noise)
    assert answer(panel, comparisons(panel)).startswith(
        "max_gradient leads at 10% (90.0%, 89.9 to 90.1; better than random beyond the intervals)"
    )


def test_the_noisiest_method_does_not_lead_for_its_noise():
    """The bound of a method that scatters says least of it; what was seen comes first."""
    steady = np.array([-0.002, 0.0, 0.002])
    panel = panel_of(
        {
            "random": {0.03: 0.77 + steady, 0.1: 0.91 + steady},
            "wild": {0.03: [0.30, 0.50, 0.22], 0.1: [0.95, 0.72, 0.85]},
            "max_gradient": {0.03: 0.34 + steady, 0.1: 0.86 + steady},
        },
        0.99 + steady,
    )
    first = findings([panel])[0].text
    assert first.startswith(
        "Given one scoring network: By mean test accuracy random is best at 3% (77.0%"
    )
    assert "worst max_gradient 34.0%" not in first.partition("10%")[2]


def test_several_scoring_networks_are_said_and_make_the_interval():
    """Replicates of one scoring network agree; two networks do not: the interval is theirs."""
    seeds = tuple((r, s) for s in range(3) for r in range(2))
    networks = tuple(s for _, s in seeds)
    values = tuple(0.8 + 0.05 * s + 0.001 * r for r, s in seeds)
    results = pa.table(
        {
            "network": ["cnn"] * 12,
            "method": ["max_gradient"] * 6 + ["random"] * 6,
            "keep_fraction": [0.1] * 12,
            "seed": [r for r, _ in seeds] * 2,
            "score_seed": [*networks, *networks],
            "test_accuracy": [*values, *(0.9 + 0.001 * r for r, _ in seeds)],
        }
    )
    (panel,) = panels_of(trials_of(results))
    point = panel.curves["max_gradient"][0]
    assert point.samples == pytest.approx([0.8005, 0.8505, 0.9005])
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(point.samples))
    assert (point.interval.low, point.interval.n) == (pytest.approx(low), 3)
    assert point.interval.high == pytest.approx(min(high, 1.0))
    assert findings([panel])[0].text.startswith("Over 3 scoring networks: By mean")


def test_shares_of_fewer_scoring_networks_do_not_take_the_others_intervals_from_them():
    """A sweep that is not finished: three networks at 10%, one of them at 30% too."""
    networks = [0, 1, 2, 0]
    results = pa.table(
        {
            "network": ["cnn"] * 8,
            "protocol": ["equal_epochs"] * 8,
            "method": ["max_gradient"] * 4 + ["random"] * 4,
            "keep_fraction": [0.1, 0.1, 0.1, 0.3] * 2,
            "seed": networks * 2,
            "score_seed": networks * 2,
            "test_accuracy": [0.80, 0.81, 0.82, 0.85, 0.90, 0.91, 0.92, 0.95],
        }
    )
    (panel,) = panels_of(trials_of(results))
    assert panel.score_network_counts == (1, 3)
    texts = [finding.text for finding in findings([panel])]
    assert texts
    assert all(text.startswith("Over 1 to 3 scoring networks: ") for text in texts)
    assert scopes([panel]) == "over 1 to 3 scoring networks"


def test_one_seed_concludes_nothing():
    panel = panel_of({"random": {0.1: [0.5]}, "max_gradient": {0.1: [0.9]}}, [0.95])
    seen, only = findings([panel])
    assert not seen.shown
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
    seen, only = findings([panel])
    assert not seen.shown
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
        "Given one scoring network: No method beats random beyond its interval, at 10% of the "
        "data. Not compared, without seeds enough beside random's: forgetting; gradient_cdf."
    )


def test_a_share_at_which_a_method_has_too_few_seeds_is_named_with_it():
    """A trial that failed leaves one seed: that share of the method alone is not judged."""
    panel = panel_of(
        {
            "random": {0.1: [0.80, 0.82, 0.81], 0.3: [0.9, 0.91, 0.92]},
            "max_gradient": {0.05: [0.5, 0.6], 0.1: [0.95], 0.3: [0.91, 0.9, 0.92]},
        },
        [0.95],
    )
    text = next(f.text for f in findings([panel]) if "beats" in f.text)
    assert text.endswith(
        "Not compared, without seeds enough beside random's: max_gradient at 5% and 10%."
    )


def test_equal_means_have_no_leader_and_seeds_that_agree_are_not_called_one_seed():
    """Accuracies at 100%: nothing leads, whether the size of the test set is known or not."""
    panel = panel_of({m: {0.1: [1.0] * 3, 0.3: [1.0] * 3} for m in ("random", "a")}, [1.0] * 3)
    assert answer(panel, comparisons(panel)) == (
        "every method is the same at 10% and 30% (100.0%); all the data give 100.0%; seeds all "
        "agree and the size of the test set is not known: nothing is concluded."
    )
    assert "every method is the same at 10% (100.0%) and 30% (100.0%)" in findings([panel])[0].text
    half = panel_of({"random": {0.1: [1.0], 0.3: [0.8]}, "a": {0.1: [1.0], 0.3: [0.9]}}, [1.0])
    assert answer(half, comparisons(half)) == (
        "every method is the same at 10% and a leads at 30% (90.0%); all the data give 100.0%; "
        "with one seed a point nothing is concluded."
    )


def test_where_all_the_data_teach_no_more_than_a_guess_none_of_it_is_called_enough():
    values = [0.1, 0.101, 0.102]
    panel = panel_of({m: {0.1: values} for m in ("random", "a")}, values)
    assert any("Data needed" in f.text for f in findings([panel]))
    guess = replace(panel, chance=0.1)
    texts = [f.text for f in findings([guess])]
    assert not any("Data needed" in text for text in texts)
    assert any("All the data teach no more than a guess (10.1%, a guess 10%)" in t for t in texts)
    assert attributes(panel) is not None
    assert attributes(guess) is None


def test_scores_are_paid_for_in_device_seconds_of_all_workers():
    """Two workers for 50 s cost 100 s of devices: four retrainings, each of which saves 30."""
    whole = {"method": "random", "keep_fraction": 1.0, "test_accuracy": 0.9, "train_time_s": 40.0}
    part = {"method": "a", "keep_fraction": 0.2, "test_accuracy": 0.9, "train_time_s": 5.0}
    rows = [
        {**row, "seed": 0, "network": "cnn", "num_workers": n} for row, n in ((whole, 1), (part, 2))
    ]
    results = pa.Table.from_pylist(rows)
    run = Run(
        "runs/a",
        "a",
        dataset={"classes": ["x", "y"]},
        metrics={"cnn": {"train_time_s": 50.0, "world_size": 2}},
        results=results,
    )
    html = "".join(cost_sheets(run, panels_of(trials_of(results))))
    sheet = html[html.index("Break-even") :]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", sheet) == ["cnn", "a", "20", "100", "30.00", "4"]


def test_one_method_measured_at_a_few_fractions_is_judged_at_those_only():
    rng = np.random.default_rng(1)
    panel = panel_of(
        {
            "random": {f: rng.normal(0.8, 0.01, 3) for f in (0.01, 0.1, 0.3)},
            "max_gradient": {0.1: rng.normal(0.8, 0.01, 3)},
        },
        [0.9],
    )
    for text in (f.text for f in findings([panel])):
        assert "10%" in text
        assert "1%" not in text.replace("10%", "").replace("0.1%", "")


def test_random_alone_with_one_seed_is_told_that_seeds_are_missing():
    """Random is there and so is the full data: what is missing is a second seed."""
    panel = panel_of({"random": {0.1: [0.8]}, "max_gradient": {0.1: [0.8, 0.9]}}, [0.95])
    *_, only = findings([panel])
    assert not only.shown
    assert "no interval" in only.text
    assert "takes random" not in only.text


def test_several_networks_are_each_judged_by_their_own_trials():
    """What one network shows is said of that one, and not of another that shows nothing."""
    noise = np.array([-0.0004, 0.0, 0.0004])
    clear = panel_of({"random": {0.1: 0.8 + noise}, "max_gradient": {0.1: 0.9 + noise}}, [0.95])
    unclear = panel_of({"random": {0.1: [0.7, 0.9]}, "max_gradient": {0.1: [0.8, 0.9]}}, [0.95])
    found = findings([clear, replace(unclear, network="vgg")])
    shown = {name: [f.shown for f in found if f.network == name] for name in ("cnn", "vgg")}
    assert (any(shown["cnn"]), any(shown["vgg"])) == (True, False)


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


def test_doubtful_trials_are_counted_in_caption_and_tables():
    """One whose best look was its last would have gone on; a row of before is judged by epochs."""
    results = pa.table(
        {
            "network": ["cnn"] * 4,
            "method": ["random", "random", "a", "a"],
            "keep_fraction": [0.1] * 4,
            "seed": [0, 1, 0, 1],
            "test_accuracy": [0.8, 0.82, 0.9, 0.91],
            "best_epoch": [30, 12, 1, 4],
            "epochs": [30, 22, 20, 20],
            "still_improving": [None, None, None, True],
            "best_at_first": [None, None, None, False],
        }
    )
    (panel,) = panels_of(trials_of(results))
    counts = {
        name: (of[0].num_still_improving, of[0].num_best_at_first)
        for name, of in panel.curves.items()
    }
    assert counts == {"random": (1, 0), "a": (1, 1)}
    assert panel.epochs == 30
    caption = accuracy_figure([panel]).caption
    assert "doubtful trials: 2 of 4 still improving at its end and 1 of 4 best at its first" in (
        caption
    )
    (row,) = [r for r in summary_rows(results) if r["method"] == "a"]
    assert (row["still_improving"], row["best_at_first"], row["score_networks"]) == (1, 1, 1)
