"""A study's record holds every replicate, and its intervals are over scoring networks."""

import csv
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import leaderboard, paper_claims, study_record
from raygrad.report.intervals import mean_interval

NUM_TEST = 360


@pytest.fixture(scope="module")
def three_networks(tmp_path_factory):
    """The results of three scoring networks, three retrainings each, as a run folder has them."""
    run = tmp_path_factory.mktemp("record") / "run"
    (run / "sweep").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"name": "own"}))
    (run / "data").mkdir()
    facts = {"classes": ["a", "b"], "counts": {"test": NUM_TEST}}
    (run / "data" / "dataset.json").write_text(json.dumps(facts))
    rng = np.random.default_rng(0)
    rows = []
    for method, fraction in [
        ("random", 1.0),
        *((m, f) for m in ("random", "max_gradient") for f in (0.1, 0.3)),
    ]:
        for network in range(3):
            shift = 0.02 * rng.normal()
            for seed in range(3):
                correct = round(NUM_TEST * (0.85 + shift + 0.005 * rng.normal()))
                rows.append(
                    {
                        "trial": f"{method}-{fraction}-{network}-{seed}",
                        "network": "cnn",
                        "score_network": "cnn",
                        "score_column": paper_claims.NORM,
                        "score_run": None,
                        "method": method,
                        "keep_fraction": fraction,
                        "budget": round(1000 * fraction),
                        "protocol": "equal_epochs",
                        "seed": seed,
                        "score_seed": network,
                        "test_accuracy": correct / NUM_TEST,
                    }
                )
    pq.write_table(pa.Table.from_pylist(rows), run / "sweep" / "results.parquet")
    return run


def test_the_record_of_three_scoring_networks_goes_to_the_leaderboard(
    three_networks, tmp_path, monkeypatch
):
    out = tmp_path / "2026-01-02-own"
    monkeypatch.setattr(
        sys, "argv", ["study_record", "--run", str(three_networks), "--out", str(out)]
    )
    study_record.main()
    found = json.loads(out.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    points = [row for row in found["rows"] if row["table"] == "points"]
    trials = pq.read_table(three_networks / "sweep" / "results.parquet").to_pandas()
    assert sum(len(row["test_accuracy"]) for row in points) == len(trials)
    (row,) = [r for r in points if (r["method"], r["keep_fraction"]) == ("random", 0.1)]
    at = trials[(trials.method == "random") & (trials.keep_fraction == 0.1)]
    means = at.groupby("score_seed").test_accuracy.mean()
    expected = mean_interval(means.tolist())
    assert (row["low"], row["high"], row["interval_over"]) == pytest.approx(
        (expected.low, expected.high, 3)
    )
    with (out / "accuracy.csv").open() as stream:
        assert {r["score_networks"] for r in csv.DictReader(stream)} == {"3"}
    assert "Over 3 scoring networks: " in (out / "findings.txt").read_text()

    monkeypatch.setattr(leaderboard, "RECORDS", tmp_path)
    page = leaderboard.page([leaderboard.Source("own", (out.name,), NUM_TEST)])
    (line,) = [x for x in page.splitlines() if x.startswith("| 10% | random |")]
    assert "| 3 networks |" in line
    assert f"{100 * means.mean():.2f}%" in line


@pytest.mark.parametrize("number", [1, 2, 3])
def test_rank_correlations_are_a_table_whatever_the_number_of_scores(number):
    scores = pd.DataFrame({"key": ["a", "b", "c"], "x": [1, 2, 3], "y": [1, 3, 2], "z": [3, 2, 1]})
    found = paper_claims.correlations(scores[["key", "x", "y", "z"][: number + 1]])
    wanted = np.array([[1, 0.5, -1], [0.5, 1, -0.5], [-1, -0.5, 1]])[:number, :number]
    np.testing.assert_allclose(found.to_numpy(), wanted)
    assert list(found.columns) == list(found.index) == ["x", "y", "z"][:number]


def test_the_papers_tables_take_intervals_over_scoring_networks(three_networks):
    """Nine retrainings by three networks are three samples; by one network they are nine."""
    trials = paper_claims.results(paper_claims.RunLayout(str(three_networks)))
    at = {"method": "max_gradient", "keep_fraction": 0.1}
    mine = trials[(trials.method == "max_gradient") & (trials.keep_fraction == 0.1)]
    for table, samples in (
        (trials, mine.groupby("score_seed").test_accuracy.mean()),
        (trials.assign(score_seed=None), mine.test_accuracy),
    ):
        found = paper_claims.accuracies(table.astype({"score_seed": float}))
        (row,) = found[np.logical_and.reduce([found[k] == v for k, v in at.items()])].to_dict(
            "records"
        )
        expected = mean_interval(samples.tolist())
        assert (row["n"], row["trials"]) == (len(samples), 9)
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(
            (expected.mean, expected.low, expected.high)
        )
