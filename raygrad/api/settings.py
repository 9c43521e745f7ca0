"""A run's settings as a stage is asked for: the same from a command line and from Python."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raygrad import pipeline
from raygrad.api.carried import as_before, lent, settled
from raygrad.api.fitting import fitted
from raygrad.api.unused import refuse_beside_no_data, refuse_unused
from raygrad.config import DataConfig, ScoreConfig, SelectConfig, StudyConfig
from raygrad.errors import ConfigError, unknown_name

log = logging.getLogger("raygrad")


def stored_or_new(run: str) -> StudyConfig:
    """Returns the configuration of a run folder, a new one where there is none."""
    return pipeline.stored_config(run) or StudyConfig(run)


def existing(run: str) -> StudyConfig:
    """Returns the configuration of a run folder.

    Raises:
        ConfigError: There is none.
    """
    config = pipeline.stored_config(run)
    if config is None:
        raise ConfigError(
            f"run folder must exist, got {run!r} without a config.json. "
            "Check the path, or begin a run: raygrad prepare, raygrad run."
        )
    return config


def seeded(config: StudyConfig, score_seeds: object) -> StudyConfig:
    """Returns a study with these scoring networks, or with its own where none are named.

    Raises:
        ConfigError: They are no seeds.
    """
    seeds = fitted(SelectConfig, "score_seeds", score_seeds)
    return replace(config, select=replace(config.select, score_seeds=seeds)) if seeds else config


def accepting(config: StudyConfig, max_reject_share: float | None) -> StudyConfig:
    """Returns what a stage is given: the run's configuration with another share of rejects.

    What was indexed stays bound to the share that it was indexed with.
    """
    if max_reject_share is None:
        return config
    share = fitted(DataConfig, "max_reject_share", max_reject_share)
    return replace(config, data=replace(config.data, max_reject_share=share))


def section_with(config: StudyConfig, section: str, given: Mapping[str, Any]) -> Any:
    """Returns a section of a run with settings of its own, as a command line's flags are meant.

    Args:
        config: The run, whose other settings hold.
        section: data, train, score, select or sweep.
        given: Values by the names of the section's fields; where a field has several values, a list
            or the only one.

    Raises:
        ConfigError: A name is no setting, a value cannot be one, or nothing would read it.
    """
    stored = getattr(lent(config), section)
    values = typed(type(stored), given, f"a setting of {section}")
    flags = [f"--{name.replace('_', '-')}" for name in values]
    found = settled(section, replace(stored, **values), stored, flags)
    refuse_unused({section: found}, config)
    return found


def typed(kind: type, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns settings as the fields of a section hold them; see `fitted`.

    Args:
        kind: The section's class.
        given: Values by name.
        what: What a name is, for the message.

    Raises:
        ConfigError: A name is no field, or a field cannot hold its value.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            raise ConfigError(unknown_name(what, name, names))
    return {name: fitted(kind, name, value) for name, value in given.items()}


def named_data(data: DataConfig, folder: str | None, before: DataConfig) -> DataConfig:
    """Returns the data with what is named without a flag: a source's folder, or data.

    Args:
        data: What the flags say, and the run.
        folder: The second word.
        before: What the run had, whose folder is not meant where one is named.

    Raises:
        ConfigError: Two folders are named.
    """
    if folder is not None:
        if pipeline.is_place(data.source):
            raise ConfigError(
                f"one folder of data must be named, got {data.source!r} and {folder!r}. Name one; "
                "of several shards: raygrad index."
            )
        if data.data_dir not in (None, folder, before.data_dir):
            raise ConfigError(
                f"a source must have one folder, got {folder!r} and --data-dir {data.data_dir!r}."
            )
        return replace(data, data_dir=folder)
    if pipeline.is_place(data.source):
        tars = as_before((data.source,), before.tars)
        return replace(data, source=DataConfig.source, tars=tars)
    return data


def audited_data(
    config: StudyConfig, data: Mapping[str, Any], max_reject_share: float | None
) -> StudyConfig:
    """Returns a run with the data that an audit names; without tars, with those that it has.

    Args:
        config: The run.
        data: Fields of `DataConfig`: tars, test_tars, labels, renumber.
        max_reject_share: The largest share of unusable images; None for the run's.

    Raises:
        ConfigError: It is said how data are read, and none are named.
    """
    if not data["tars"]:
        _refuse_alone(data)
        return config
    named = DataConfig(**_own_data(data, config.data.tars))
    if max_reject_share is not None:
        share = fitted(DataConfig, "max_reject_share", max_reject_share)
        named = replace(named, max_reject_share=share)
    return replace(config, data=named)


def _own_data(data: Mapping[str, Any], before: tuple[str, ...]) -> dict[str, Any]:
    """Returns fields of `DataConfig` that name one's own shards, which the run may have already."""
    return {**typed(DataConfig, data, "a setting of data"), "tars": as_before(data["tars"], before)}


def _refuse_alone(data: Mapping[str, Any]) -> None:
    """Refuses fields of `DataConfig` beside no tars."""
    defaults = vars(DataConfig())
    refuse_beside_no_data({n: v for n, v in data.items() if n != "tars"}, defaults)


def scoring_config(
    config: StudyConfig,
    score: ScoreConfig,
    data: Mapping[str, Any],
    score_seeds: object,
    max_reject_share: float | None,
) -> StudyConfig:
    """Returns a run as scoring is asked for: with one's own shards, network and columns.

    Args:
        config: The run.
        score: The section that is asked for.
        data: Fields of `DataConfig`: tars, labels, image, renumber, channels; without tars the
            run's prepared data are scored.
        score_seeds: Scoring networks; by default the run's.
        max_reject_share: The largest share of unusable examples; None for the run's.

    Raises:
        ConfigError: It is said how data are read, and none are named; or how images are shown to a
            network of one's own, and the run's is scored.
    """
    if not data["tars"]:
        _refuse_alone(data)
    else:
        # Once there is an index, the share is scoring's alone.
        share = config.data.max_reject_share
        if max_reject_share is not None and not config.data.tars:
            share = fitted(DataConfig, "max_reject_share", max_reject_share)
        named = DataConfig(
            **_own_data(data, config.data.tars),
            max_reject_share=share,
            nodes=config.data.nodes,
            val_fraction=0.0,
            test_fraction=0.0,
        )
        config = replace(config, data=named)
    is_trained = pipeline.is_trained(config)
    if score.network is not None and not is_trained:
        # Nothing else is trained here: it is what a sweep of this run will retrain.
        config = replace(config, train=replace(config.train, network=score.network))
    elif score.network == config.train.network and not (score.checkpoint or score.fresh_weights):
        log.info("score: %s is the network that the run trained, as it is", score.network)
        score = replace(score, network=None)
        refuse_unused({"score": score}, config)
    select = config.select
    if select.score_column not in score.columns:
        select = replace(select, score_column=score.columns[0])
    return seeded(replace(config, score=score, select=select), score_seeds)
