"""README's numbers are those of the records."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.readme_numbers import (
    CIFAR,
    NUMBERS,
    README,
    Number,
    cell,
    differences,
    fresh_differences,
    uncovered,
    value,
)


def test_every_declared_number_of_readme_is_what_its_record_gives():
    assert differences(README.read_text(encoding="utf-8"), NUMBERS) == []


def test_a_number_that_the_record_does_not_give_is_told():
    """Line ends do not matter, a digit does."""
    number = Number("it reaches {} of all", lambda: ["99.5%"])
    assert differences("Here it\nreaches 99.5% of all.", [number]) == []
    (told,) = differences("Here it reaches 99.4% of all.", [number])
    assert told == "README must say 'it reaches 99.5% of all', as the records do; it does not."


def test_what_is_not_declared_is_listed():
    number = Number("{} of all", lambda: ["99.5%"])
    text = "It is 99.5% of all. It took 3 s.\n```\nrun --seed 0\n```\nSee [record](a/2026.md)."
    assert uncovered(text, [number]) == ["It took 3 s."]


def test_a_cell_is_of_one_row_and_a_table_of_one_heading():
    assert 0.8 < value(CIFAR, method="random", keep_fraction=0.5) < 1
    with pytest.raises(LookupError, match="must have one row of"):
        value(CIFAR, method="random")
    with pytest.raises(LookupError, match="got none"):
        cell("2026-11-23-digits.json", "nowhere", "1%", "random")


def test_a_fresh_study_is_compared_trial_by_trial(tmp_path):
    results, record = tmp_path / "results.parquet", tmp_path / "trials.csv"
    pq.write_table(pa.table({"trial": ["a", "b"], "test_accuracy": [0.5, 0.7]}), results)
    record.write_text("trial,test_accuracy\na,0.5\nb,0.6\nc,0.1\n")
    assert fresh_differences(results, record) == [
        "trial c is in one of them only",
        "trial b: 0.700000 now, 0.600000 recorded",
    ]
