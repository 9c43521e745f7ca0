"""The configuration of a study: frozen dataclasses, one a stage, checked when they are made.

A field is written once, here: the command-line flags of every stage and job are derived from it,
and so is what a change of it means for a run that has it already (see `declaring`). Names of
methods, score columns and networks are checked by the floors that own them, before anything
starts. May import `raygrad.errors` alone; no torch.
"""

from raygrad.config.data import DataConfig
from raygrad.config.declaring import EXECUTION
from raygrad.config.scoring import ScoreConfig
from raygrad.config.selecting import SelectConfig
from raygrad.config.study import DEFAULT_WAIT_S, StudyConfig
from raygrad.config.sweeping import Protocol, SweepConfig
from raygrad.config.training import TrainConfig

__all__ = [
    "DEFAULT_WAIT_S",
    "EXECUTION",
    "DataConfig",
    "Protocol",
    "ScoreConfig",
    "SelectConfig",
    "StudyConfig",
    "SweepConfig",
    "TrainConfig",
]
