"""Help that fits a screen, and wrong usage in one line."""

import re

import pytest

from raygrad.cli import command as cli
from raygrad.cli.brief_help import command_help
from raygrad.cli.subcommands import COMMANDS, Job


@pytest.mark.parametrize("command", [*COMMANDS, "job"])
def test_short_help_fits_a_screen_and_names_every_flag_in_a_line(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command_help(COMMANDS.get(command, Job), f"raygrad {command}")
    assert len(lines) <= 46
    flags = [line for line in lines if line.startswith("  ")]
    assert all(len(line) <= 80 or "|" in line for line in flags), "the flags' own width"
    assert all(re.match(r"  \S+( \S+)? +\S", line) for line in flags), "a text beside each"


def test_short_help_shows_a_runs_own_values(capsys, tmp_path, monkeypatch):
    from raygrad import pipeline
    from raygrad.config import StudyConfig, TrainConfig

    stored = StudyConfig(str(tmp_path), train=TrainConfig(epochs=77))
    monkeypatch.setattr(pipeline, "stored_config", lambda run: stored)
    with pytest.raises(SystemExit):
        cli.main(["train", "--run", str(tmp_path), "--help"])
    assert re.search(r"--epochs INT .*\(77\)", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("train --run r --epochs x", "--epochs: invalid literal for int"),
        ("train --run r --optimizer foo", "invalid choice 'foo' .* ('sgd', 'adamw', 'muon')"),
        ("train --run r --epoch 3", "--epoch, 3. Perhaps you meant: .*--epochs"),
        ("train --run", "Missing value for argument '--run'"),
        ("export s --run r", "Missing from raygrad export: --out"),
        ("run", "Missing from raygrad run: --storage/--run. See raygrad run --help"),
        ("score --run r --colums loss", "Perhaps you meant: --columns. See raygrad score"),
        ("trian", "Unrecognized options: trian. Available subcommands: prepare"),
        ("", "Expected one of {prepare, index"),
    ],
)
def test_wrong_usage_is_one_line_with_the_flags_that_may_be_meant(line, text, capsys):
    assert cli.main(line.split()) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert re.search(text.replace("(", r"\(").replace(")", r"\)"), said)
