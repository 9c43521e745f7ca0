import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.cli.whole_study import print_results
from raygrad.report import summary_rows
from raygrad.report.figures.gain import gain_figure
from raygrad.report.intervals import Interval
from raygrad.report.opening import lead
from raygrad.report.results import Panel, Point, panels_of, trials_of
from raygrad.report.sheets import result_sheets
from raygrad.report.style import WIDE
from raygrad.report.tables import Run, read_run
from tests.report import study


@pytest.fixture(scope="module")
def results(run_folder):
    return pq.read_table(run_folder / "sweep" / "results.parquet")


def test_summary_rows_are_the_means_and_deviations_of_the_table(results):
    """Against a loop over the rows."""
    rows = summary_rows(results)
    seen = {}
    for r in results.to_pylist():
        key = (r["network"], r["method"], r["keep_fraction"], r["protocol"])
        seen.setdefault(key, []).append(r["test_accuracy"])
    assert len(rows) == len(seen)
    for row in rows:
        values = seen[row["network"], row["method"], row["keep_fraction"], row["protocol"]]
        assert row["n"] == len(values) == 3
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-12)
        assert row["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_a_single_seed_has_no_deviation(results):
    one = results.filter(pa.array([s == 0 for s in results["seed"].to_pylist()]))
    assert all(r["n"] == 1 and math.isnan(r["std"]) for r in summary_rows(one))


def test_curves_hold_every_trial_once(results):
    panels = panels_of(trials_of(results))
    assert {(p.network, p.protocol) for p in panels} == {
        (n, p) for n in study.NETWORKS for p in ("equal_epochs", "equal_steps")
    }
    for panel in panels:
        assert set(panel.curves) == set(study.METHODS)
        for points in panel.curves.values():
            fractions = [p.keep_fraction for p in points]
            assert fractions == sorted(study.FRACTIONS)[:-1]
        assert panel.full is not None
        assert len(panel.full.values) == 3


def _rows(**columns):
    return pa.table({"network": ["cnn"] * len(columns["method"]), **columns})


def test_full_data_trials_count_once_a_seed_whatever_method_they_are_listed_under():
    """Every method keeps the same set at 100%: repeated trials are no further evidence."""
    table = _rows(
        method=["random", "random", "max_gradient", "max_gradient"],
        keep_fraction=[1.0] * 4,
        seed=[0, 1, 0, 1],
        test_accuracy=[0.9, 0.92, 0.9, 0.92],
    )
    (panel,) = panels_of(trials_of(table))
    assert panel.full.values == pytest.approx((0.9, 0.92))
    assert panel.curves == {}


def test_a_repeated_trial_of_one_seed_is_no_second_seed():
    table = _rows(
        method=["random", "random"],
        keep_fraction=[0.1, 0.1],
        seed=[0, 0],
        test_accuracy=[0.8, 0.9],
    )
    (row,) = summary_rows(table)
    assert (row["n"], row["mean"]) == (1, pytest.approx(0.85))


def test_draws_and_a_subset_made_elsewhere_of_one_method_are_two_series():
    table = _rows(
        method=["ccs", "ccs", "mine"],
        keep_fraction=[0.1] * 3,
        seed=[0] * 3,
        score_network=["cnn", None, None],
        score_column=["loss", None, None],
        test_accuracy=[0.8, 0.7, 0.6],
    )
    (panel,) = panels_of(trials_of(table))
    means = {name: points[0].values for name, points in panel.curves.items()}
    assert sorted(means.values()) == [(0.6,), (0.7,), (0.8,)]
    assert means["mine"] == (0.6,)
    assert means["ccs (made elsewhere)"] == (0.7,)


def test_draws_by_another_runs_scores_are_a_series_of_their_own():
    """Its network and column may have the same names as the run's own."""
    table = _rows(
        method=["ccs", "ccs", "random", "random"],
        keep_fraction=[0.1] * 4,
        seed=[0, 0, 0, 1],
        score_network=["cnn"] * 4,
        score_column=["loss"] * 4,
        score_run=[None, "grand-1a2b", None, "grand-1a2b"],
        test_accuracy=[0.8, 0.7, 0.6, 0.5],
    )
    (panel,) = panels_of(trials_of(table))
    means = {name: points[0].values for name, points in panel.curves.items()}
    assert means == {"ccs": (0.8,), "ccs (of grand-1a2b)": (0.7,), "random": (0.6, 0.5)}


def test_the_scoring_networks_of_another_run_are_replicates_of_one_series():
    """Each has a table of its own, which names it in the results."""
    table = _rows(
        method=["ccs", "ccs", "random", "random"],
        keep_fraction=[0.1] * 4,
        seed=[0] * 4,
        score_seed=[0, 1, 0, 1],
        score_network=["cnn"] * 4,
        score_column=["loss"] * 4,
        score_run=["my-nets-1a2b", "my-nets-3c4d", None, None],
        test_accuracy=[0.8, 0.7, 0.6, 0.5],
    )
    rows = {row["method"]: row for row in summary_rows(table)}
    assert {name: row["score_networks"] for name, row in rows.items()} == {"ccs": 2, "random": 2}


def test_runs_of_one_name_that_scored_otherwise_are_not_taken_for_replicates():
    """Two folders of one name, each with a network of seed 0: one mean of both would hide it."""
    table = _rows(
        method=["ccs", "ccs"],
        keep_fraction=[0.1] * 2,
        seed=[0] * 2,
        score_seed=[0, 0],
        score_network=["cnn"] * 2,
        score_column=["loss"] * 2,
        score_run=["nets-1a2b", "nets-3c4d"],
        test_accuracy=[0.8, 0.7],
    )
    means = {row["method"]: row["mean"] for row in summary_rows(table)}
    assert means == {"ccs (of nets-1a2b)": 0.8, "ccs (of nets-3c4d)": 0.7}


def _with_own_random(**own):
    """Two draws of raygrad's by each of two shares, then rows of the user's own subsets."""
    columns = {
        "method": ["random"] * 4,
        "keep_fraction": [0.1, 0.1, 1.0, 1.0],
        "seed": [0, 1, 0, 1],
        "score_seed": [0] * 4,
        "score_network": ["cnn"] * 4,
        "test_accuracy": [0.5, 0.6, 0.8, 0.9],
    }
    size = len(own["method"])
    own = {"score_seed": [None] * size, "score_network": [None] * size, **own}
    return _rows(**{name: [*values, *own[name]] for name, values in columns.items()})


def test_random_subsets_made_elsewhere_are_a_series_of_their_own():
    """Of the same share and seeds as raygrad's, and of a seed more: no replicates of its draws."""
    table = _with_own_random(
        method=["random"] * 3,
        keep_fraction=[0.1] * 3,
        seed=[0, 1, 2],
        test_accuracy=[0.1, 0.2, 0.3],
    )
    rows = {(row["method"], row["keep_fraction"]): row for row in summary_rows(table)}
    own = rows["random (made elsewhere)", 0.1]
    assert (own["n"], own["mean"]) == (3, pytest.approx(0.2))
    drawn = rows["random", 0.1]
    assert (drawn["n"], drawn["mean"], drawn["score_networks"]) == (2, pytest.approx(0.55), 1)
    (panel,) = panels_of(trials_of(table))
    assert [point.values for point in panel.curves["random"]] == [(0.5, 0.6)]


def test_own_subsets_named_random_keep_the_name_where_nothing_else_has_it():
    table = _with_own_random(
        method=["random"], keep_fraction=[0.2], seed=[0], test_accuracy=[0.1]
    ).slice(4)
    assert [row["method"] for row in summary_rows(table)] == ["random"]


def test_an_own_subset_of_all_the_data_is_no_further_scoring_network():
    """The draw of everything is there with the same seeds already."""
    table = _with_own_random(
        method=["all_data"], keep_fraction=[1.0], seed=[0], test_accuracy=[0.1]
    )
    (panel,) = panels_of(trials_of(table))
    assert (panel.full.values, panel.full.num_score_networks) == ((0.8, 0.9), 1)
    (alone,) = panels_of(trials_of(table.slice(4)))
    assert alone.full.values == (0.1,)


def test_seeds_of_which_some_are_unknown_are_put_in_order():
    """A subset of raygrad's that was taken from another run names no scoring seed."""
    table = _with_own_random(
        method=["random"],
        keep_fraction=[0.1],
        seed=[0],
        score_network=["cnn"],
        test_accuracy=[0.7],
    )
    (row,) = [row for row in summary_rows(table) if row["keep_fraction"] == 0.1]
    assert row["trials"] == 3


def test_failed_trials_are_left_out():
    table = _rows(
        method=["random", "random", "random"],
        keep_fraction=[0.1] * 3,
        seed=[0, 1, 2],
        test_accuracy=[0.8, None, float("nan")],
    )
    assert summary_rows(table)[0]["n"] == 1


def test_an_old_table_without_protocol_or_seed_columns_still_counts():
    table = _rows(method=["random"] * 2, keep_fraction=[0.1] * 2, test_accuracy=[0.8, 0.9])
    (row,) = summary_rows(table)
    assert (row["protocol"], row["n"]) == ("equal_epochs", 2)


def test_series_of_several_score_columns_and_networks_are_told_apart():
    table = _rows(
        method=["max_gradient", "max_gradient", "max_gradient", "random"],
        keep_fraction=[0.1] * 4,
        seed=[0] * 4,
        score_column=["loss", "el2n", "loss", "loss"],
        score_network=["cnn", "cnn", "vgg", "cnn"],
        test_accuracy=[0.5, 0.6, 0.7, 0.8],
    )
    means = {r["method"]: r["mean"] for r in summary_rows(table)}
    assert means == {
        "max_gradient (loss, scored by cnn)": 0.5,
        "max_gradient (el2n)": 0.6,
        "max_gradient (loss, scored by vgg)": 0.7,
        "random": 0.8,
    }


def test_equal_steps_takes_its_full_line_from_equal_epochs_where_only_that_was_run():
    table = _rows(
        method=["random", "random"],
        keep_fraction=[1.0, 0.1],
        protocol=["equal_epochs", "equal_steps"],
        seed=[0, 0],
        test_accuracy=[0.9, 0.8],
    )
    panels = {p.protocol: p for p in panels_of(trials_of(table))}
    assert panels["equal_steps"].full.values == (0.9,)


def _by_networks() -> pa.Table:
    """Two scoring networks, two retrainings each: they differ more than retrainings of one do."""
    return _rows(
        method=["a"] * 4,
        keep_fraction=[0.1] * 4,
        seed=[0, 1, 2, 3],
        score_seed=[0, 0, 1, 1],
        test_accuracy=[0.80, 0.82, 0.90, 0.92],
    )


def test_the_spread_over_several_scoring_networks_is_between_their_means():
    (row,) = summary_rows(_by_networks())
    assert (row["n"], row["trials"], row["score_networks"]) == (2, 4, 2)
    assert row["mean"] == pytest.approx(0.86)
    assert row["std"] == pytest.approx(np.std([0.81, 0.91], ddof=1))


def test_the_terminal_says_what_a_spread_is_over(capsys):
    table = _by_networks()
    print_results(table)
    head, line, words = capsys.readouterr().out.splitlines()
    assert head.split()[-3:] == ["std", "std", "over"]
    assert line.split()[-4:] == ["0.8600", "0.0707", "2", "networks"]
    assert words.startswith("std over networks: between the means of scoring networks")
    print_results(table.slice(0, 2))
    _, line, words = capsys.readouterr().out.splitlines()
    assert line.split()[-4:] == ["0.8100", "0.0141", "2", "seeds"]
    assert "given one scoring network" in words
    print_results(table.slice(0, 1))
    assert capsys.readouterr().out.splitlines()[1].split()[-3:] == ["n/a", "1", "seed"]


def test_a_table_of_one_network_and_protocol_says_them_once():
    """What is the same in all rows stands above them; what differs is a column."""
    rows = [
        {
            "network": "cnn",
            "method": m,
            "keep_fraction": 0.1,
            "seed": s,
            "test_accuracy": 0.8 + 0.01 * s,
        }
        for m in ("random", "max_gradient")
        for s in (0, 1)
    ]
    (one,) = result_sheets(Run("r", "r", results=pa.Table.from_pylist(rows)))
    assert "fraction of cnn, equal epochs: mean" in one
    heads = re.findall(r"<th[^>]*><button[^>]*>([^<]+)<", one)
    assert heads[:3] == ["method", "kept (%)", "test accuracy (%)"]
    both = [*rows, *({**row, "network": "mlp"} for row in rows)]
    (two,) = result_sheets(Run("r", "r", results=pa.Table.from_pylist(both)))
    assert re.findall(r"<th[^>]*><button[^>]*>([^<]+)<", two)[:2] == ["network", "method"]
    assert "fraction of equal epochs: mean" in two


def test_a_run_of_class_folders_is_named_after_its_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "config.json").write_text('{"data": {"data_dir": "/photos/birds/"}}')
    for source, name in (("image-folder", "birds"), ("mnist", "mnist")):
        (tmp_path / "data" / "dataset.json").write_text(f'{{"source": "{source}"}}')
        assert read_run(str(tmp_path)).name == name
    own = '{"data": {"data_dir": null, "tars": ["s3://b/cats"]}}'
    (tmp_path / "config.json").write_text(own)
    (tmp_path / "data" / "dataset.json").write_text('{"source": "image-folder"}')
    assert read_run(str(tmp_path)).name == "cats"


def test_a_page_of_training_alone_answers_how_it_went():
    metrics = {"test_accuracy": 0.345, "val_accuracy": 0.3544, "best_epoch": 5, "epochs": 6}
    assert lead(Run("r", "r", metrics={"cnn5": metrics}), [], []) == [
        "cnn5 is right on 34.5% of its test examples and 35.4% of its val examples, "
        "at epoch 5 of 6."
    ]


def test_small_gains_can_be_told_beside_large_ones():
    """From +32 to +0.3 points, both stand clear of zero: beyond one the axis is logarithmic."""

    def panel(gain):
        points = {"random": (0.5, 0.9), "a": (0.5 + gain, 0.903)}
        curves = {
            name: tuple(
                Point(f, ((0,),), (v,), Interval(v, math.nan, math.nan, 1), 1.0)
                for f, v in zip((0.1, 0.5), of, strict=True)
            )
            for name, of in points.items()
        }
        return Panel("cnn", "equal_epochs", curves, None)

    for gain, scale in ((0.32, "symlog"), (0.02, "linear")):
        figure = gain_figure([panel(gain)]).draw(WIDE)
        assert figure.axes[0].get_yscale() == scale


def test_a_mean_of_two_recipes_or_states_of_the_data_is_left_out_and_named(tmp_path, caplog):
    """Which of them is meant the table does not say."""
    table = _rows(
        method=["random", "random", "random", "ccs"],
        keep_fraction=[0.1, 0.1, 0.3, 0.1],
        seed=[0, 0, 0, 0],
        config_digest=["old", "new", "new", None],
        test_accuracy=[0.5, 0.9, 0.9, 0.8],
    )
    rows = summary_rows(table)
    assert [(row["method"], row["keep_fraction"]) for row in rows] == [
        ("ccs", 0.1),
        ("random", 0.3),
    ]
    assert "several for random at 0.1 of cnn, which are left out. Sweep again" in caplog.text
    (panel,) = panels_of(trials_of(table))
    assert [point.keep_fraction for point in panel.curves["random"]] == [0.3]
    (tmp_path / "sweep").mkdir()
    pq.write_table(table, tmp_path / "sweep" / "results.parquet")
    run = read_run(str(tmp_path))
    assert run.results.num_rows == 2
    assert any("several for random at 0.1" in note for note in run.notes)
