"""A configuration as plain values: what is stored, and what decides the results."""

import dataclasses
from typing import Any

from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.errors import ConfigError


def identity(section: Any) -> dict[str, Any]:
    """Returns the fields of a section that decide what comes out, without those of execution.

    What is None is not asked for and left out, so that a run keeps its identity when raygrad gains
    a field.

    Two runs whose sections have the same identity have the same results (up to the rounding that
    the number of workers brings into training), wherever and with however many workers they ran.
    """
    return {
        f.name: getattr(section, f.name)
        for f in dataclasses.fields(section)
        if not f.metadata.get("execution") and getattr(section, f.name) is not None
    }


def to_dict(config: StudyConfig) -> dict[str, Any]:
    """Returns the configuration as nested plain values, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> StudyConfig:
    """Returns the configuration that `to_dict` came from, from JSON or not.

    Raises:
        ConfigError: A field is unknown; the run folder was written by another version.
    """
    sections: dict[str, type] = {
        "data": DataConfig,
        "train": TrainConfig,
        "score": ScoreConfig,
        "select": SelectConfig,
        "sweep": SweepConfig,
    }
    made: dict[str, Any] = {"run": values.get("run", "")}
    for name, section in sections.items():
        given = values.get(name, {})
        unknown = set(given) - {f.name for f in dataclasses.fields(section)}
        if unknown:
            raise ConfigError(
                f"config.{name} must have known fields only, got {sorted(unknown)}. "
                "Open the run with the version that wrote it."
            )
        made[name] = section(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        )
    return StudyConfig(**made)
