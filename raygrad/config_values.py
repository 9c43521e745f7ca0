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
from raygrad.config.declaring import declared
from raygrad.errors import ConfigError

_FIRST_FIELDS: dict[str, str] = {
    "DataConfig": """
        source tars test_tars labels channels image_size max_examples max_reject_share
        strict shard_bytes val_fraction split_seed
    """,
    "TrainConfig": """
        network epochs batch_size optimizer learning_rate momentum weight_decay schedule
        lr_decay_epochs lr_decay_factor warmup_epochs augment augment_pixels patience
        validation_steps precision seed dynamics probe_size bound_epochs bound_batches
    """,
    "ScoreConfig": """
        columns network checkpoint num_classes weights_seed image_size resize keep_aspect
        mean std dtype features
    """,
    "SelectConfig": """
        methods keep_fractions seeds score_column score_run score_network drop_fraction
        class_balanced missing
    """,
    "SweepConfig": """
        networks protocols early_termination
    """,
}
"""The fields of the results in the first run folders: these are in every digest, also at their
defaults. Fields that were gained later are not, so nothing is to be added here."""

_FIRST_NAMES: dict[str, tuple[str, str, dict[str, str]]] = {
    "TrainConfig": ("numerics", "precision", {"exact": "float32"}),
    "ScoreConfig": ("numerics", "dtype", {"exact": "float32"}),
}
"""A field that had another name, and values of other names, in the first run folders: what they
hold is read, and digests are made of it."""


def identity(section: Any) -> dict[str, Any]:
    """Returns what decides the results of a section, for digests: see `asked_of`.

    Fields and values stand under the names that they had in the first run folders.
    """
    found = asked_of(section)
    now, first, values = _FIRST_NAMES.get(type(section).__name__, ("", "", {}))
    if now in found:
        value = found.pop(now)
        found[first] = values.get(value, value)
    return found


def asked_of(section: Any) -> dict[str, Any]:
    """Returns the fields of a section that decide what comes out, without those of execution.

    What is None is not asked for and left out, and so is a field that raygrad gained after its
    first run folders, while it has its default: a run keeps its identity when there are more.

    Two runs whose sections have the same identity have the same results (up to the rounding that
    the number of workers brings into training), wherever and with however many workers they ran.
    """
    name = type(section).__name__
    now, was, _ = _FIRST_NAMES.get(name, ("", "", {}))
    first = [now if field == was else field for field in _FIRST_FIELDS[name].split()]
    found = {}
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        is_later = f.name not in first
        is_asked = value is not None and not (is_later and value == _default(f))
        if is_asked and declared(section, f).identity == "results":
            found[f.name] = value
    return found


def _renamed(section: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns what a run folder holds of a section, by the names of today."""
    now, first, values = _FIRST_NAMES.get(section, ("", "", {}))
    if first not in given:
        return given
    today = {was: name for name, was in values.items()}
    kept = {name: value for name, value in given.items() if name != first}
    return {now: today.get(given[first], given[first]), **kept}


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


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
        given = _renamed(section.__name__, values.get(name, {}))
        unknown = set(given) - {f.name for f in dataclasses.fields(section)}
        if unknown:
            raise ConfigError(
                f"config.{name} must have known fields only, got {sorted(unknown)}. "
                "Open the run with the version that wrote it."
            )
        made[name] = section(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        )
    if "wait_s" in values:  # not in run folders of before there was the field
        made["wait_s"] = float(values["wait_s"])
    return StudyConfig(**made)
