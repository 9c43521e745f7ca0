"""A run folder keeps the configuration of what is complete in it."""

import json
from collections.abc import Sequence
from dataclasses import replace

import raygrad
from raygrad.config import DataConfig, StudyConfig
from raygrad.config_values import from_dict, identity, to_dict
from raygrad.data.sources import check_source
from raygrad.engine.score.networks import TABLE_COLUMNS
from raygrad.errors import ConfigError
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.pipeline.stages import completed, training_inputs
from raygrad.runs.layout import RunLayout
from raygrad.scoring import check_columns
from raygrad.selection import check_method
from raygrad.storage import files
from raygrad.storage.urls import expand
from raygrad.training.losses import build_loss
from raygrad.training.models import check_network


def check(config: StudyConfig) -> None:
    """Checks every name in the configuration before anything starts.

    Raises:
        ConfigError: A source, network, loss, score column or method is unknown, or a glob of shards
            matches nothing.
    """
    if config.data.tars:
        expand([*config.data.tars, *config.data.test_tars])
    else:
        check_source(config.data.source)
    for network in (config.train.network, *config.sweep.networks):
        check_network(network)
    build_loss(config.train.loss)
    if config.score.loss is not None:
        build_loss(config.score.loss)
    check_columns(config.score.columns, TABLE_COLUMNS)
    for method in config.select.methods:
        check_method(method)


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
        network = stored.train.network
        stages = {"data": "prepare", "train": f"train-{network}", "score": f"score-{network}"}
        if config.train.network != network:
            # Another network has training and scores of its own, which its markers guard.
            del stages["train"], stages["score"]
            trained = f"train-{config.train.network}"
            if files.exists(layout.marker(trained)):
                completed(layout, trained, training_inputs(config))
            scored = f"score-{config.train.network}"
            if files.exists(layout.marker(scored)):
                completed(layout, scored, score_inputs(config).digest)
        if _has_grown(config.data, stored.data):
            del stages["data"]
        complete = [name for name in stages if files.exists(layout.marker(stages[name]))]
        _refuse_changes(config, stored, complete)
    text = json.dumps({**to_dict(config), "raygrad": raygrad.__version__}, indent=1)
    try:
        files.write_bytes(layout.config, text.encode())
    except OSError as error:
        raise ConfigError(
            f"run folder must be writable, got {error}. Name another --run, or make room."
        ) from error


def complete_stages(config: StudyConfig) -> list[str]:
    """Returns the stages of a study that are complete in its run folder."""
    layout, network = RunLayout(config.run), config.train.network
    names = ("prepare", f"train-{network}", f"score-{network}")
    return [name for name in names if files.exists(layout.marker(name))]


def stored_config(run_url: str) -> StudyConfig | None:
    """Returns the configuration of a run folder, or None where there is no run yet."""
    url = RunLayout(run_url).config
    if not files.exists(url):
        return None
    values = json.loads(files.read_bytes(url))
    return from_dict({**values, "run": run_url})


def _has_grown(now: DataConfig, was: DataConfig) -> bool:
    """Tells whether only training shards were added."""
    if not (was.tars and now.tars) or identity(replace(now, tars=was.tars)) != identity(was):
        return False
    return set(expand(was.tars)) <= set(expand(now.tars))


def _refuse_changes(config: StudyConfig, stored: StudyConfig, sections: Sequence[str]) -> None:
    for name in sections:
        was, now = identity(getattr(stored, name)), identity(getattr(config, name))
        differ = [
            f"{name}.{k} was {was.get(k)!r}, got {now.get(k)!r}"
            for k in sorted(was.keys() | now.keys())
            if was.get(k) != now.get(k)
        ]
        if differ:
            raise ConfigError(
                f"run folder {config.run} must keep its configuration: {'; '.join(differ)}. "
                "Name another --run, or give the values that it has."
            )
