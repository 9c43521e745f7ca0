"""The leaderboard is what the records' trials give."""

import pandas as pd
import pytest

from benchmarks import attribute_table
from benchmarks.leaderboard import PAGE, RECORDS, SOURCES, entries, page, read_panels
from raygrad.report.wording import protocol_words


def test_the_page_is_what_the_trials_give():
    """`python -m benchmarks.leaderboard` writes it again after a record has changed."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_an_entry_is_the_mean_of_its_trials_and_its_difference_that_of_the_means():
    (mnist,) = (source for source in SOURCES if source.name == "MNIST")
    trials = pd.concat([pd.read_csv(RECORDS / name / "trials.csv") for name in mnist.records])
    trials = trials.drop_duplicates("trial")
    at = trials[(trials.protocol == "equal_epochs") & (trials.keep_fraction == 0.01)]
    random = at[at.method == "random"].test_accuracy.mean()
    dual = at[at.method == "dual_beta"].test_accuracy
    panel = next(p for p in read_panels(mnist) if p.protocol == "equal_epochs")
    (row,) = [r for r in entries(panel) if r[:2] == ["1%", "dual_beta"]]
    assert row[2].startswith(f"{100 * dual.mean():.2f}%, ")
    assert row[3] == f"{len(dual)} seeds"
    assert float(row[4].split()[0]) == pytest.approx(100 * (dual.mean() - random), abs=0.006)


def test_a_verdict_goes_with_its_corrected_p_and_its_interval():
    rows = [row for source in SOURCES for p in read_panels(source) for row in entries(p)]
    told = [row for row in rows if row[6]]
    assert len(told) > 40
    for row in told:
        low, high = (float(end) for end in row[4].partition("(")[2].rstrip(")").split(" to "))
        p_value = 0.0 if row[5].startswith("<") else float(row[5])
        if abs(p_value - 0.05) > 0.001:
            assert (row[6] == "level") == (p_value > 0.05)
        assert {"beats": low >= 0, "worse": high <= 0, "level": low <= 0 <= high}[row[6]]


def test_an_entry_has_three_replicates():
    rows = [row for source in SOURCES for p in read_panels(source) for row in entries(p)]
    assert min(int(row[3].split()[0]) for row in rows) >= 3


def test_every_sweep_with_all_the_data_has_its_brackets_in_the_table():
    found = [(source.name, panel) for source in SOURCES for panel in read_panels(source)]
    rows = {(row[0], row[1]): row for n, p in found if (row := attribute_table.row(n, p))}
    mnist = rows["MNIST", "cnn, equal epochs"]
    # The same brackets as of the record that first read them.
    assert mnist[2:5] == ["0.991 (0.990 to 0.992) from 1%, n = 3", "70% to 90%", "95% to 97%"]
    # Of a sweep of several networks' scores a method's own stands there.
    own = rows["MNIST, 3 scoring CNNs", "cnn, equal epochs"]
    assert own[3:] == ["less than 90%", *["95% to 97%"] * 3]
    assert all(int(row[2].rpartition("n = ")[2]) >= 3 for row in rows.values())
    # Random has one seed there, though all the data has three.
    few = {("MNIST", "cnn, equal steps")}
    whole = {(n, f"{p.network}, {protocol_words(p.protocol)}") for n, p in found if p.full}
    assert set(rows) == whole - few
