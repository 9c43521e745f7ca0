"""Every flag of every command: what it changes, whose identity it is, what a change of it does."""

import dataclasses
import logging
import typing
from pathlib import Path

import pytest
import tyro

from raygrad import pipeline
from raygrad.cli.subcommands import COMMANDS, Job
from raygrad.config import StudyConfig
from raygrad.config.declaring import declared
from raygrad.config.page import SECTIONS, field_texts, page
from raygrad.config_values import identity
from raygrad.errors import ConfigError
from raygrad.runs.layout import RunLayout
from raygrad.storage.manifest import write_marker

PAGE = Path(__file__).parents[2] / "raygrad/CONFIG.md"

OTHERS = {
    ("data", "source"): "mnist",
    ("data", "labels"): "folder",
    ("data", "tars"): ("FOLDER/a.tar",),
    ("data", "test_tars"): ("FOLDER/a.tar",),
    ("train", "network"): "mlp",
    ("train", "augment"): "shift",
    ("train", "loss"): "focal=2",
    ("train", "dynamics_epochs"): 2,
    ("train", "lr_decay_epochs"): (7,),
    ("train", "bound_epochs"): (7,),
    ("train", "keep_epochs"): (7,),
    ("train", "track"): ("tensorboard",),
    ("data", "nodes"): ("raygrad=index",),
    ("train", "nodes"): ("raygrad=train",),
    ("score", "nodes"): ("raygrad=score",),
    ("sweep", "nodes"): ("raygrad=!score", "ray.io/market-type=in(spot,on-demand)"),
    ("score", "columns"): ("loss", "el2n", "grad_l2_last_layer_weights"),
    ("score", "network"): "mlp",
    ("score", "checkpoint"): ("FOLDER/a.tar",),
    ("score", "loss"): "focal=2",
    ("score", "mean"): (0.5, 0.5, 0.5),
    ("score", "std"): (0.5, 0.5, 0.5),
    ("score", "resize"): 300,
    ("score", "image_size"): 128,
    ("select", "methods"): ("random",),
    ("select", "keep_fractions"): (0.5,),
    ("select", "seeds"): (7,),
    ("select", "score_seeds"): (7,),
    ("select", "score_column"): "loss",
    ("select", "options"): ("d2.gamma_r=2",),
    ("sweep", "networks"): ("mlp",),
    ("sweep", "protocols"): ("equal_steps",),
}
"""Another value where none follows from the type."""

NEEDS = {
    ("score", "checkpoint"): {"network": "mlp"},
    ("train", "dynamics_epochs"): {"dynamics": True},
}
"""What has to be there for the value to be one."""

FLAGS = [(name, f.name) for name, section in SECTIONS.items() for f in dataclasses.fields(section)]


def another(section, field, value, folder):
    """Returns a value of the field that differs from the given one."""
    if (section, field.name) in OTHERS:
        found = OTHERS[section, field.name]
        return (str(folder / "a.tar"),) if found == ("FOLDER/a.tar",) else found
    kind = typing.get_type_hints(SECTIONS[section])[field.name]
    choices = [c for one in (kind, *typing.get_args(kind)) for c in typing.get_args(one)]
    words = [c for c in choices if isinstance(c, str | int) and c not in (value, None)]
    if typing.get_origin(kind) is typing.Literal:
        return words[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if isinstance(value, float) and value else value + 1
    if str in typing.get_args(kind) or kind is str:
        return "other"
    return 1


def complete_run(tmp_path, section, needed):
    """Returns the configuration of a run whose stages are complete."""
    (tmp_path / "a.tar").write_bytes(b"")
    config = StudyConfig(str(tmp_path / "run"))
    before = dataclasses.replace(getattr(config, section), **needed)
    config = dataclasses.replace(config, **{section: before})
    pipeline.bind(config)
    for stage in ("prepare", f"train-{config.train.network}", f"score-{config.scored_network}"):
        write_marker(RunLayout(config.run).marker(stage), "digest")
    return config


@pytest.mark.parametrize(("section", "name"), FLAGS)
def test_a_change_on_a_complete_run_does_what_the_field_declares(section, name, tmp_path, caplog):
    """Refused by name, ignored with a line, or acted on: more of it will be done."""
    complete = complete_run(tmp_path, section, NEEDS.get((section, name), {}))
    before = getattr(complete, section)
    field = next(f for f in dataclasses.fields(before) if f.name == name)
    says = declared(before, field)
    value = another(section, field, getattr(before, name), tmp_path)
    after = dataclasses.replace(before, **{name: value})
    asked = dataclasses.replace(complete, **{section: after})
    assert (identity(after) != identity(before)) == (says.identity == "results")
    with caplog.at_level(logging.INFO, "raygrad"):
        if says.on_change == "refused":
            with pytest.raises(ConfigError, match=rf"{section}\.{name} was .*--redo"):
                pipeline.bind(asked)
            assert pipeline.stored_config(complete.run) == complete
            return
        pipeline.bind(asked)
    assert pipeline.stored_config(complete.run) == asked
    told = f"{section}.{name} is now {value!r}" in caplog.text
    # Subsets and retrainings are complete one by one, and say themselves how many of them are.
    assert told == (says.on_change == "ignored" and section not in ("select", "sweep"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_says_what_it_is(section):
    texts = field_texts(SECTIONS[section])
    assert [f.name for f in dataclasses.fields(SECTIONS[section]) if not texts.get(f.name)] == []


def test_the_page_of_all_fields_is_made_from_them():
    assert PAGE.read_text() == page(), "do: python -m raygrad.config.page > raygrad/CONFIG.md"


OWN_FLAGS = {
    "run": "names the run folder",
    "runs": "names run folders",
    "redo": "removes what is complete of other inputs; no part of the configuration",
    "recipe": "gives the section train its defaults",
    "subset": "names a file to read",
    "key": "names images to look at",
    "worst": "how many images to look at",
    "top": "how many rows are written",
    "probabilities": "names a file to read",
    "extend": "adds shards to those of the run, whose settings hold",
    "subsets": "names files to read, which the trials' identity holds by their keys",
    "list": "prints and ends",
    "all": "prints and ends",
    "contains": "chooses what is printed",
    "smoke": "takes the small configuration",
    "plan": "prints and ends",
    "prepare": "does the first stage alone",
    "seconds": "how long is measured",
    "price_per_device_hour": "what is printed",
    "place": "is data_dir",
    "audit": "is the section of the command alone, whose change does more or does it again",
    "score_seeds": "is select.score_seeds",
    "wait_s": "how long is waited for machines; no part of the configuration",
}
"""Flags of commands that are no field of a section, and what they do."""


@pytest.mark.parametrize("command", [*COMMANDS, "job"])
def test_every_flag_of_a_command_is_a_field_or_is_accounted_for(command):
    """A flag that stands outside of the sections has a section's field of its name, or a word."""
    kind = COMMANDS.get(command, Job)
    known = {f.name for section in SECTIONS.values() for f in dataclasses.fields(section)}
    flags = {f.name for f in dataclasses.fields(kind)} - set(SECTIONS)
    outputs = {"out", "format", "follow", "columns", "name"}  # where and how a table is written
    assert flags - known - set(OWN_FLAGS) - outputs == set()


@pytest.mark.parametrize("command", ["prepare", "train", "score", "select", "sweep", "run"])
def test_a_short_help_has_the_basic_flags_and_the_long_one_all(command, capsys):
    from raygrad.cli import command as cli

    lengths = []
    for flag in ("--help", "--help-all", "--help"):
        with pytest.raises(SystemExit):
            cli.main([command, flag])
        text = capsys.readouterr().out
        lengths.append(len(text.splitlines()))
        for name in SECTIONS:
            if command in (name, "run"):
                for f in dataclasses.fields(SECTIONS[name]):
                    shown = f"-{f.name.replace('_', '-')} " in text.replace(".", "-")
                    basic = declared(SECTIONS[name], f).basic
                    assert shown or flag == "--help" or basic or f.name == "source"
        assert ("--help-all shows every flag" in text) == (flag == "--help")
    assert lengths[0] == lengths[2], "the long help leaves the short one as it was"
    assert lengths[0] < 0.75 * lengths[1]
    assert tyro is not None
