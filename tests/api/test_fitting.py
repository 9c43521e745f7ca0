"""What Python gives a setting is what a command line could have given it, or is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from raygrad.api import settings
from raygrad.config import StudyConfig
from raygrad.config.auditing import AuditConfig
from raygrad.errors import ConfigError


def given(section, **values):
    (name,) = values
    return getattr(settings.section_with(StudyConfig("runs/none"), section, values), name)


@pytest.mark.parametrize(
    ("section", "value", "held"),
    [
        ("train", {"epochs": np.int64(3)}, 3),
        ("train", {"epochs": 1e2}, 100),
        ("train", {"learning_rate": 1}, 1.0),
        ("train", {"learning_rate": np.float64(0.25)}, 0.25),
        ("train", {"dynamics": np.bool_(True)}, True),
        ("train", {"lr_decay_epochs": 5}, (5,)),
        ("train", {"dynamics_epochs": None}, None),
        ("score", {"checkpoint": Path("a.pt")}, ("a.pt",)),
        ("score", {"columns": "loss"}, ("loss",)),
        ("data", {"data_dir": Path("x")}, "x"),
        ("data", {"channels": np.int32(1)}, 1),
        ("select", {"methods": {"random", "easiest", "band"}}, ("band", "easiest", "random")),
        ("select", {"keep_fractions": np.array([0.25, 0.5])}, (0.25, 0.5)),
        ("select", {"seeds": range(3)}, (0, 1, 2)),
    ],
)
def test_values_become_those_of_a_command_line_so_that_a_run_folder_can_hold_them(
    section, value, held
):
    found = given(section, **value)
    assert json.dumps(found) == json.dumps(held)
    assert type(found) is type(held)


@pytest.mark.parametrize(
    ("section", "value", "said"),
    [
        ("train", {"epochs": "3"}, "epochs must be a whole number, got '3'"),
        ("train", {"epochs": 2.5}, "epochs must be a whole number, got 2.5"),
        ("train", {"epochs": True}, "epochs must be a whole number, got True"),
        ("train", {"learning_rate": "0.1"}, "learning_rate must be a number, got '0.1'"),
        ("train", {"dynamics": "no"}, "dynamics must be True or False, got 'no'"),
        ("train", {"network": None}, "network must be a text, got None"),
        ("train", {"lr_decay_epochs": [1.5]}, "must be a whole number, or several in a list"),
        ("data", {"channels": 2}, "channels must be one of 1, 3, got 2"),
        ("data", {"val_fraction": "0.1"}, "val_fraction must be a number, got '0.1'"),
        ("select", {"class_balanced": True}, "must be one of 'no', 'even', 'proportional'"),
        ("select", {"missing": "nope"}, "must be one of 'error', 'drop', 'hardest', 'easiest'"),
        ("sweep", {"protocols": ["equal_time"]}, "one of 'equal_epochs', 'equal_steps', or"),
    ],
)
def test_what_no_command_line_could_say_is_refused_by_name(section, value, said):
    with pytest.raises(ConfigError, match="must be") as refused:
        given(section, **value)
    assert said in str(refused.value)


def test_settings_of_an_audit_and_arguments_beside_them_are_held_to_the_same():
    config, shards = StudyConfig("runs/none"), {"tars": ("a.tar",)}
    with pytest.raises(ConfigError, match="check must be True or False"):
        settings.typed(AuditConfig, {"check": "yes"}, "a setting of audit")
    with pytest.raises(ConfigError, match="renumber must be True or False"):
        settings.audited_data(config, {**shards, "renumber": "yes"}, None)
    with pytest.raises(ConfigError, match="max_reject_share must be a number"):
        settings.accepting(config, "0.1")
    with pytest.raises(ConfigError, match="score_seeds must be a whole number"):
        settings.seeded(config, "ab")
    assert settings.seeded(config, np.arange(2)).select.score_seeds == (0, 1)
    assert settings.seeded(config, 3).select.score_seeds == (3,)
