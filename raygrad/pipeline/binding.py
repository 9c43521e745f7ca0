"""A run folder keeps the configuration of what is complete in it."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import raygrad
from raygrad.config import DataConfig, SelectConfig, StudyConfig
from raygrad.config.declaring import declared
from raygrad.config_values import asked_of, identity, to_dict
from raygrad.data.sources import check_source
from raygrad.engine.score.networks import TABLE_COLUMNS
from raygrad.errors import ConfigError, DataError, ResourceError
from raygrad.pipeline.data_settings import refuse_unused
from raygrad.pipeline.noticing import code_of, training_code
from raygrad.pipeline.redoing import forget_changed
from raygrad.pipeline.score_inputs import check_weights, score_inputs
from raygrad.pipeline.stages import completed, training_inputs
from raygrad.pipeline.stored import stored_config
from raygrad.runs.layout import RunLayout
from raygrad.scoring import check_columns
from raygrad.selection import COMPARING, check_method
from raygrad.selection.named import FLAGS_OF, parsed_options
from raygrad.storage import files
from raygrad.storage.urls import expand
from raygrad.training.losses import build_loss
from raygrad.training.models import check_network

log = logging.getLogger("raygrad")


@contextlib.contextmanager
def bound(config: StudyConfig, redo: bool = False, stage: str | None = None) -> Iterator[None]:
    """Binds a run folder to a configuration, and lets go of what is refused in the context.

    A section whose stage is not complete when its values are refused is what it was before, so
    that the next command is not blamed for them; a first command that fails leaves no configuration
    behind. What was interrupted or given up after work was done stays: the same command goes on.

    Args:
        config: The study.
        redo: Do again, once everything is checked, what is complete of other inputs.
        stage: With `redo`, a stage that is done again in any case: prepare, train or score; or
            audit, for which only data are prepared again.

    Raises:
        ConfigError: As of `check` and `bind`.
    """
    check(config)
    layout = RunLayout(config.run)
    before = stored_config(config.run)
    if redo:
        forget_changed(config, stage)
    names = {} if before is None else _stages(before)
    there = {section for section in names if files.exists(layout.marker(names[section]))}
    bind(config)
    try:
        yield
    except (ConfigError, DataError, ResourceError):
        stages = _stages(config)
        done = [
            section
            for section, name in stages.items()
            if section not in there and files.exists(layout.marker(name))
        ]
        if before is None and not done:
            files.remove(layout.config)
        else:
            kept = {section: getattr(config, section) for section in done}
            _store(_with_sections(before or StudyConfig(config.run), kept, config))
        raise


def check(config: StudyConfig) -> None:
    """Checks every name in the configuration before anything starts.

    Raises:
        ConfigError: A source, network, loss, score column or method is unknown, a glob of shards
            matches nothing, or storage refuses the first of them.
    """
    if config.data.tars:
        _require_first(expand([*config.data.tars, *config.data.test_tars]))
    else:
        check_source(config.data.source)
    if not files.exists(RunLayout(config.run).marker("prepare")):
        refuse_unused(config.data)
    named = (config.scored_network, *config.sweep.networks, *config.select.compare_networks)
    for network in (config.train.network, *named):
        check_network(network)
    build_loss(config.train.loss)
    if config.score.loss is not None:
        build_loss(config.score.loss)
    if config.score.is_own or config.score.fresh_weights:
        _check_weights(config)
    check_columns(config.score.columns, TABLE_COLUMNS)
    _check_methods(config.select)


def _check_methods(select: SelectConfig) -> None:
    options = parsed_options(select.options)
    for name, flag in FLAGS_OF.items():
        method, _, option = name.partition(".")
        if option in options.get(method, {}):
            raise ConfigError(f"{name} must be given by its own flag, got an option. Give {flag}.")
    for method in select.methods:
        check_method(method, **options.get(method, {}))
    balanced = select.class_balanced != "no"
    if balanced and "batch_aware" in select.methods:
        raise ConfigError(
            f"batch_aware evens classes by itself, got class_balanced {select.class_balanced!r}. "
            "Leave it out, or raise balance: --options batch_aware.balance=2."
        )
    comparing = sorted(set(select.methods) & set(COMPARING))
    if comparing and select.missing not in ("error", "drop"):
        raise ConfigError(
            f"missing must be error or drop for {', '.join(comparing)}, got {select.missing!r}: "
            "what is compared has no hardest or easiest value. Give one of the two."
        )


def _check_weights(config: StudyConfig) -> None:
    """Checks what a network of the user's choice is given, unless its scores are complete."""
    if not files.exists(RunLayout(config.run).marker(_stages(config)["score"])):
        check_weights(config.score)


def _require_first(urls: Sequence[str]) -> None:
    """Asks for the first shard, so that what is wrong with all is said before Ray starts."""
    try:
        files.file_size(urls[0])
    except FileNotFoundError as error:
        raise ConfigError(f"shards must exist, got none at {urls[0]}. Check the path.") from error


def bind(config: StudyConfig) -> None:
    """Writes the configuration into the run folder, after checking it against what is there.

    A run is bound to the data, training and scoring that are complete in it; what has not been
    done yet, and the choice of subsets and retrainings, may change.

    Raises:
        ConfigError: A complete stage was configured otherwise.
    """
    layout = RunLayout(config.run)
    stored = stored_config(config.run)
    if stored is not None:
        stages, now = _stages(stored), _stages(config)
        # Another network has training and scores of its own, which its markers guard.
        if now["train"] != stages["train"]:
            del stages["train"]
            if files.exists(layout.marker(now["train"])):
                completed(layout, now["train"], training_inputs(config), training_code(config))
        if now["score"] != stages["score"]:
            del stages["score"]
            if files.exists(layout.marker(now["score"])):
                inputs = score_inputs(config)
                code = code_of(config.scored_network, inputs.loss)
                completed(layout, now["score"], inputs.digest, code)
        if _has_grown(config.data, stored.data):
            del stages["data"]
        complete = [name for name in stages if files.exists(layout.marker(stages[name]))]
        _refuse_changes(config, stored, complete)
        _tell_ignored(config, stored, complete)
    _store(config)


def _stages(config: StudyConfig) -> dict[str, str]:
    """Returns the stage that each section binds once it is complete."""
    trained, scored = config.train.network, config.scored_network
    return {"data": "prepare", "train": f"train-{trained}", "score": f"score-{scored}"}


def is_trained(config: StudyConfig) -> bool:
    """Tells whether the run has trained its network."""
    return files.exists(RunLayout(config.run).marker(_stages(config)["train"]))


def _with_sections(before: StudyConfig, kept: dict[str, Any], refused: StudyConfig) -> StudyConfig:
    """Returns a configuration with the sections of stages that are complete."""
    try:
        return replace(before, **kept)
    except ConfigError:  # the old choice of subsets is by a column that is not scored any more
        return replace(before, **kept, select=refused.select)


def _store(config: StudyConfig) -> None:
    layout = RunLayout(config.run)
    text = json.dumps({**to_dict(config), "raygrad": raygrad.__version__}, indent=1)
    try:
        files.write_bytes(layout.config, text.encode())
    except OSError as error:
        raise ConfigError(
            f"run folder must be writable, got {error}. Name another --run, or make room."
        ) from error


def complete_stages(config: StudyConfig) -> list[str]:
    """Returns the stages of a study that are complete in its run folder."""
    layout = RunLayout(config.run)
    return [name for name in _stages(config).values() if files.exists(layout.marker(name))]


def _has_grown(now: DataConfig, was: DataConfig) -> bool:
    """Tells whether only training shards were added."""
    if not (was.tars and now.tars) or identity(replace(now, tars=was.tars)) != identity(was):
        return False
    # The same names stand for what they stood for, or for more: a folder is not listed to know it.
    return was.tars == now.tars or set(expand(was.tars)) <= set(expand(now.tars))


def _tell_ignored(config: StudyConfig, stored: StudyConfig, sections: Sequence[str]) -> None:
    for name in sections:
        was, now = getattr(stored, name), getattr(config, name)
        for field in dataclasses.fields(now):
            value = getattr(now, field.name)
            is_ignored = declared(now, field).on_change == "ignored"
            if is_ignored and value != getattr(was, field.name):
                log.info(
                    "%s.%s is now %r; what is complete stays as it is",
                    name,
                    field.name,
                    value,
                )


def _refuse_changes(config: StudyConfig, stored: StudyConfig, sections: Sequence[str]) -> None:
    for name in sections:
        section = getattr(config, name)
        was, now = asked_of(getattr(stored, name)), asked_of(section)
        refused = {
            f.name
            for f in dataclasses.fields(section)
            if declared(section, f).on_change == "refused"
        }
        differ = [
            f"{name}.{k} was {was.get(k)!r}, got {now.get(k)!r}"
            for k in sorted((was.keys() | now.keys()) & refused)
            if was.get(k) != now.get(k)
        ]
        if differ:
            raise ConfigError(
                f"run folder {config.run} must keep its configuration: {'; '.join(differ)}. "
                "Do the stage again (--redo), name another --run, or give the values that it has."
            )
