"""`raygrad status`: what is complete, running and missing, how long it took and what it cost."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from raygrad import pipeline
from raygrad.cli import command
from raygrad.config import ScoreConfig
from raygrad.errors import DataError
from raygrad.pipeline.surveying import status
from raygrad.runs.journal import BEAT_S, Entry
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ResultRows, write_row
from raygrad.storage import files
from raygrad.storage.manifest import write_json, write_marker
from tests.cases import make_tiny_config


def enter(layout, stage, seconds, outcome, started_s=1000.0):
    entry = Entry(stage, started_s, seconds, outcome, "p", "0.1.0")
    name = f"{started_s:.0f}-{stage}-{outcome}.json"
    files.write_bytes(
        files.join(layout.journal, name), json.dumps(dataclasses.asdict(entry)).encode()
    )


def row(trial, method, fraction, seed, protocol):
    return {
        "trial": trial, "network": "linear", "method": method, "keep_fraction": fraction,
        "seed": seed, "protocol": protocol, "train_time_s": 36.0, "num_workers": 1,
        "ended_early": False, "test_accuracy": 0.9,
    }  # fmt: skip


def half_done(config):
    """A study that is scored, with 2 of its 12 retrainings, whose sweep was interrupted."""
    layout = RunLayout(config.run)
    config = dataclasses.replace(config, score=ScoreConfig(price_per_hour=10.0))
    pipeline.bind(config)
    write_marker(layout.marker("prepare"), "d", num_examples=1797, num_rejects=1)
    trained = {"test_accuracy": 0.9, "epochs": 3, "train_time_s": 72.0, "world_size": 2}
    write_marker(layout.marker("train-linear"), "d", digest="c", **trained)
    write_marker(layout.marker("score-linear"), "d", num_examples=1300, rejected=0)
    write_json(files.join(layout.scores("linear"), "_manifest.json"), {"score_time_s": 36.0})
    enter(layout, "train-linear", 20.0, "interrupted", 1000.0)
    enter(layout, "train-linear", 30.0, "complete", 1100.0)
    enter(layout, "sweep", 40.0, "interrupted", 1200.0)
    write_row(layout.sweep, row("a", "random", 0.05, 0, "equal_epochs"))
    write_row(layout.sweep, row("b", "random", 0.05, 1, "equal_steps"))
    write_row(layout.sweep, row("c", "ccs", 0.05, 1, "equal_steps"))
    return config, layout


def by_stage(config):
    return {found.stage: found for found in status(config)}


def test_each_stage_is_said_with_its_time_and_its_hours(tmp_path):
    config, _ = half_done(make_tiny_config(tmp_path))
    found = by_stage(config)
    states = {name: one.state for name, one in found.items()}
    assert states == {
        "prepare": "complete",
        "train-linear": "complete",
        "score-linear": "complete",
        "sweep": "stopped",
        "report": "missing",
    }
    assert (found["train-linear"].seconds, found["train-linear"].starts) == (50.0, 2)
    assert found["train-linear"].device_hours == pytest.approx(72 * 2 / 3600)
    assert found["score-linear"].device_hours == pytest.approx(0.01)
    assert found["sweep"].note == (
        "interrupted, 2 of 12 retrainings, and 1 of other configurations"
    )
    assert found["sweep"].device_hours == pytest.approx(0.03)


def test_of_a_score_table_that_is_not_complete_its_parts_alone_are_counted(tmp_path):
    """The list of its parts and its rejects stand beside them, as Parquet too."""
    config, layout = half_done(make_tiny_config(tmp_path))
    Path(layout.marker("score-linear")).unlink()
    for name in ("part-train-000000", "part-train-000001", "_parts", "rejects"):
        Path(layout.scores("linear"), f"{name}.parquet").touch()
    assert by_stage(config)["score-linear"].note == "2 parts so far"


@pytest.mark.parametrize("on", ["disk", "s3"])
def test_the_command_says_what_is_missing_what_it_cost_and_what_is_next(
    on, tmp_path, capsys, request
):
    config = make_tiny_config(tmp_path)
    if on == "s3":
        config = dataclasses.replace(config, run=request.getfixturevalue("s3_url"))
    config, _ = half_done(config)
    assert command.main(["status", config.run]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2] == (
        "train-linear   complete  test accuracy 0.9000 after 3 epochs; 50 s in 2 starts; "
        "0.04 device-hours; cost 0.40"
    )
    assert said[-2] == "together       0.08 device-hours, cost 0.80"
    assert said[-1] == f"next           raygrad run --run {config.run}"


def test_what_is_at_work_and_what_was_killed_are_told_apart(tmp_path):
    """By the journal's last beat: a process that is killed writes no end."""
    config, layout = half_done(make_tiny_config(tmp_path))
    enter(layout, "sweep", 10.0, "running", time.time() - 15)
    assert by_stage(config)["sweep"].state == "running"
    assert by_stage(config)["sweep"].note.startswith("since 2")
    for url in files.list_files(layout.journal, ".json"):
        if "sweep" in url:
            files.filesystem(url)[0].delete_file(files.filesystem(url)[1])
    enter(layout, "sweep", 10.0, "running", time.time() - 10 - 4 * BEAT_S)
    assert by_stage(config)["sweep"].state == "stopped"
    assert by_stage(config)["sweep"].note.startswith("killed")


def test_a_folder_of_before_there_was_a_journal_is_read(tmp_path):
    config, layout = half_done(make_tiny_config(tmp_path))
    for url in files.list_files(layout.journal, ".json"):
        files.filesystem(url)[0].delete_file(files.filesystem(url)[1])
    found = by_stage(config)
    assert found["train-linear"].state == "complete"
    assert (found["train-linear"].seconds, found["train-linear"].starts) == (0.0, 0)
    assert found["sweep"].state == "missing"
    assert found["sweep"].note.startswith("2 of 12")


def test_a_run_that_has_just_begun_lacks_everything(tmp_path):
    config = make_tiny_config(tmp_path)
    pipeline.bind(config)
    assert {one.state for one in status(config)} == {"missing"}


def test_no_run_is_one_line_and_status_2(tmp_path, capsys):
    assert command.main(["status", str(tmp_path / "none")]) == 2
    assert "run folder must exist" in capsys.readouterr().err


def test_a_run_that_is_audited_alone_has_no_study_to_do(tmp_path, capsys):
    """Its audit has a line, and what is next is its page; beside a study the line stands there."""
    config = make_tiny_config(tmp_path)
    layout = RunLayout(config.run)
    pipeline.bind(config)
    write_marker(layout.marker("prepare"), "d", num_examples=90, num_rejects=0)
    enter(layout, "audit", 20.0, "interrupted", 1000.0)
    assert [one.stage for one in status(config)] == ["prepare", "audit", "report"]
    assert (
        by_stage(config)["audit"].line() == "audit          stopped   interrupted; 20 s in 1 start"
    )
    assert command.main(["status", config.run]) == 0
    assert f"raygrad audit --run {config.run}" in capsys.readouterr().out
    counts = {"num_suspects": 5, "num_repeated": 4, "num_odd": 1, "num_kept": 80, "num_dropped": 10}
    write_marker(layout.marker("audit"), "d", **counts)
    line = by_stage(config)["audit"]
    assert line.note == "5 suspects, 4 repeats, 1 outliers; 80 kept, 10 dropped"
    assert command.main(["status", config.run]) == 0
    assert f"raygrad report {config.run}" in capsys.readouterr().out
    enter(layout, "train-linear", 30.0, "complete", 1100.0)
    assert [one.stage for one in status(config)][-3:] == ["audit", "sweep", "report"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0\0\0\0"])
@pytest.mark.parametrize("name", ["config.json", "stages/train-linear.json"])
def test_a_damaged_file_of_the_folder_is_named_in_a_line(name, content, tmp_path, capsys):
    config, _ = half_done(make_tiny_config(tmp_path))
    Path(config.run, name).write_text(content)
    assert command.main(["status", config.run]) == 1
    said = capsys.readouterr().err
    assert "must be whole JSON" in said
    assert name in said
    assert "Restore it, or remove it and " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("size", [0, 40, -4])
def test_a_damaged_table_of_results_is_made_anew_of_the_trials_own_files(size, tmp_path, caplog):
    _, layout = half_done(make_tiny_config(tmp_path))
    table = ResultRows(layout.sweep, layout.results).write()
    whole = Path(layout.results).read_bytes()
    Path(layout.results).write_bytes(whole[:size])
    rows = ResultRows(layout.sweep, layout.results)
    assert "results.parquet is damaged" in caplog.text
    assert rows.write().equals(table)
    assert Path(layout.results).read_bytes() == whole


def test_a_damaged_row_of_a_trial_is_named(tmp_path):
    config, layout = half_done(make_tiny_config(tmp_path))
    Path(layout.sweep, "trials/a.json").write_text("{")
    with pytest.raises(DataError, match=r"got .* in .*trials/a\.json\. .*runs its trial alone"):
        status(config)
