"""A study that is killed goes on where it stopped, and ends as if it had never been."""

import dataclasses
import os
import re
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raygrad import pipeline
from raygrad.runs.journal import read_journal
from raygrad.runs.layout import RunLayout
from tests.cases import make_tiny_config
from tests.preloaded import started

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
TIMEOUT_S = 240
pytestmark = [pytest.mark.long(seconds=150), pytest.mark.timeout(900)]
COMPARED = ["trial", "test_accuracy", "test_loss", "val_loss", "best_epoch", "steps"]


def run_until(run: str, pattern: str | None, how: int = signal.SIGKILL) -> str:
    """Runs the study; ends its driver by a signal at the first line that matches `pattern`."""
    process = started(["-m", "raygrad", "run", "--run", run], ENVIRONMENT, run)
    said, deadline_s = [], time.monotonic() + TIMEOUT_S
    for text in process.stderr:
        said.append(text)
        if pattern is not None and re.search(pattern, text):
            process.send_signal(how)
            break
        assert time.monotonic() < deadline_s, "".join(said)
    said += process.stderr.readlines()
    status = process.wait(TIMEOUT_S)
    ended = -how if how == signal.SIGKILL else 128 + how
    assert status == (0 if pattern is None else ended), "".join(said)
    return "".join(said)


def bound(config):
    train = dataclasses.replace(config.train, epochs=100, patience=100, save_interval_s=0.0)
    config = dataclasses.replace(config, train=train)
    pipeline.bind(config)
    return config


@pytest.fixture
def config(tmp_path):
    return bound(make_tiny_config(tmp_path))


@pytest.fixture
def of_small_trials(tmp_path):
    """Twelve trials that each take little: most of a retraining on everything would be epochs."""
    config = make_tiny_config(tmp_path)
    select = dataclasses.replace(config.select, keep_fractions=(0.05, 0.2), seeds=(0, 1, 2))
    sweep = dataclasses.replace(config.sweep, protocols=("equal_epochs",))
    return bound(dataclasses.replace(config, select=select, sweep=sweep))


def test_a_study_killed_in_every_stage_ends_as_an_undisturbed_one(
    of_small_trials, tmp_path, ray_session
):
    """Same scores, same subsets, same trials, to the last bit, after four ends of the driver."""
    config = of_small_trials
    undisturbed = dataclasses.replace(config, run=str(tmp_path / "undisturbed"))
    pipeline.run(undisturbed)

    run_until(config.run, r"train: \d\d of 100 epochs")
    said = run_until(config.run, "score-linear: starts")
    assert "prepare: complete, skipped" in said
    assert "train: 1 of 100" not in said, "training went on from its last saved epoch"
    run_until(config.run, r"sweep: \d of 12")
    said = run_until(config.run, r"sweep: \d of \d+ trials, ", signal.SIGTERM)
    assert said.splitlines()[-1] == "raygrad: stopped; the same command goes on from here"
    assert not Path(config.run, "sweep/failed.parquet").exists()
    said = run_until(config.run, None)
    assert "train-linear: complete, skipped" in said
    assert "score-linear: complete, skipped" in said
    assert " of 12 trials are finished" in said

    results, expected = (
        pq.read_table(Path(c.run, "sweep/results.parquet"), columns=COMPARED)
        for c in (config, undisturbed)
    )
    assert results.equals(expected)
    assert list(Path(config.run).rglob(".*.tmp")) == []
    journal = read_journal(RunLayout(config.run).journal)
    assert [(e.stage, e.outcome) for e in journal] == [
        ("prepare", "complete"),
        ("train-linear", "running"),
        ("train-linear", "complete"),
        ("score-linear", "running"),
        ("score-linear", "complete"),
        ("select", "complete"),
        ("sweep", "running"),
        ("sweep", "interrupted"),
        ("sweep", "complete"),
    ]
    assert len({e.process for e in journal}) == 5, "five starts of the command"


def test_signals_stop_a_training_and_what_comes_after_it_in_the_same_process(config, sigint_heard):
    """Ray's own handlers would end the process without a word, and one outlives the training."""
    for pattern, how in (
        (r"prepare: starts", signal.SIGTERM),  # while Ray starts
        (r"train: \d\d of 100 epochs", signal.SIGINT),
        (r"train: \d\d of 100 epochs", signal.SIGTERM),
        (r"sweep: \d of 12 trials, ", signal.SIGINT),
    ):
        said = run_until(config.run, pattern, how)
        assert said.splitlines()[-1] == "raygrad: stopped; the same command goes on from here"
        assert "Traceback" not in said
