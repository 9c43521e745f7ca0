"""Doing stages again: what came of them, and of what came of them, is removed first."""

import logging
from collections.abc import Mapping
from typing import Any

from raygrad.config import StudyConfig
from raygrad.config_values import identity
from raygrad.data.fingerprint import Seen
from raygrad.data.shards import DATASET_FILE
from raygrad.errors import ConfigError
from raygrad.pipeline.noticing import CODE, code_of, shard_change, source_change, training_code
from raygrad.pipeline.replicates import compared_networks, replicate_name, trained_replicates
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.pipeline.stages import facts_of_data, training_inputs
from raygrad.runs.influence_tables import INFLUENCE
from raygrad.runs.layout import RunLayout, folder_name, one_name
from raygrad.runs.result_rows import ResultRows
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, read_marker, write_json
from raygrad.training.models import ImageSpec
from raygrad.training.outside import read_weights
from raygrad.training.starting import initial_network

log = logging.getLogger("raygrad")


def forget_changed(config: StudyConfig, at_least: str | None = None) -> None:
    """Removes what is complete of other inputs than the configuration's, and all that came of it.

    Nothing is removed before it is known that the work can be done again.

    Args:
        config: The study, as it is asked for now.
        at_least: A stage that is done again even if nothing changed: prepare, train or score; or
            audit, which has to do with the data alone.

    Raises:
        ConfigError: What a stage that would be done again is made from is not there, or does not
            fit.
    """
    layout, own = RunLayout(config.run), config.train.network
    change = _change_of_data(config)
    if at_least == "prepare" or change is not None:
        _check_data(config, at_least, change)
        _forget_data(layout)
        return
    if at_least == "audit":
        return
    trains = at_least == "train" or _is_stale(config, "train", own)
    scores = at_least == "score" or _is_scored_otherwise(config, at_least)
    if trains:
        _check_training(config, at_least)
    elif at_least == "score" and files.exists(layout.marker("prepare")):
        score_inputs(config)
    if trains:
        _forget_training(config, own)
    if scores:
        _forget_scores(layout, config.scored_network)
    others = [] if config.score.is_own else trained_replicates(config) + compared_networks(config)
    for of, name in others:
        if _is_stale(of, "train", name):
            _forget_training(of, name, beside=True)
        if _is_stale(of, "score", name):
            _forget_scores(layout, name, beside=True)


def _check_data(config: StudyConfig, at_least: str | None, change: str | None) -> None:
    """Raises ConfigError where data cannot be prepared again, or what is to be done with them."""
    from raygrad.pipeline.preparing import check_data  # with all of Ray

    url = RunLayout(config.run).url
    if at_least == "train" or (at_least == "score" and not config.data.tars):
        raise ConfigError(
            f"the data must be as they were prepared, got others in {url}: {change}. Prepare them "
            "again first, which removes all that came of them: raygrad prepare --redo, or index "
            "--redo."
        )
    check_data(config.data)
    if at_least is None:
        _check_start(config)
    if at_least in (None, "score"):
        for checkpoint in config.score.checkpoint:
            read_weights(files.absolute(checkpoint))


def _check_start(config: StudyConfig) -> None:
    if config.train.start_from is not None:
        read_weights(config.train.start_from)


def _check_training(config: StudyConfig, at_least: str | None) -> None:
    """Raises ConfigError where the network of the run cannot be trained again, or is not to be."""
    layout, train = RunLayout(config.run), config.train
    if at_least == "score" and not config.score.is_own:
        raise ConfigError(
            f"a network that is scored again must be as its training is now, got another recipe, "
            f"code or first weights of {train.network} in {layout.url}. Train it again first: "
            f"raygrad train --redo --run {layout.url}."
        )
    _check_start(config)
    known = files.exists(files.join(layout.data, DATASET_FILE))
    facts = facts_of_data(layout) if known else {}
    if size := facts.get("image_size"):
        spec = ImageSpec(facts["channels"], size, size, facts["num_classes"])
        initial_network(train.network, train, spec, train.seed)


def _change_of_data(config: StudyConfig) -> str | None:
    """Returns what changed since data were prepared; None where nothing did, or none are."""
    layout, data = RunLayout(config.run), config.data
    marker = read_marker(layout.marker("prepare"))
    if marker is None:
        return None
    if marker["inputs_digest"] != digest(identity(data)):
        return "they are configured otherwise"
    seen = Seen()
    return source_change(layout, data, seen) or shard_change(layout, data, seen)


def _is_scored_otherwise(config: StudyConfig, at_least: str | None) -> bool:
    if config.score.is_own and at_least == "train":
        return False  # what the run trains has nothing to do with it
    return _is_stale(config, "score", config.scored_network)


def _is_stale(config: StudyConfig, kind: str, name: str) -> bool:
    """Tells whether a stage is complete, and of other inputs or other code than now.

    Args:
        config: The configuration of the network.
        kind: train or score.
        name: The name of the network's folders.

    Raises:
        ConfigError: A network of the user's own cannot be read: nobody can tell.
    """
    marker = read_marker(RunLayout(config.run).marker(f"{kind}-{name}"))
    if marker is None:
        return False
    try:
        if kind == "train":
            inputs, now = training_inputs(config), training_code(config)
        else:
            found = score_inputs(config, name)
            inputs, now = found.digest, code_of(config.scored_network, found.loss)
    except ConfigError:  # what it was made from is gone, or does not fit any more
        if kind == "score" and config.score.is_own:
            raise
        return True
    was = marker.get("code", now)
    if any(was.get(one, code) != code for one, code in now.items()):
        return True
    return bool(marker["inputs_digest"] != inputs)


def _forget_data(layout: RunLayout) -> None:
    log.warning(
        "prepare: is done again; all that came of the old data in %s is removed", layout.url
    )
    made = "stages", "data", "train", "scores", "features", "subsets", "sweep", "audit", "report"
    for folder in (*made, INFLUENCE):
        files.remove(files.join(layout.url, folder))


def _forget_training(config: StudyConfig, network: str, beside: bool = False) -> None:
    """Removes a network and its scores; with `beside` one that is trained beside the run's own."""
    layout = RunLayout(config.run)
    log.warning("train-%s: is done again; the network and its scores are removed", network)
    for name in [network] if beside else _with_replicates(layout, "train", network):
        files.remove(layout.marker(f"train-{name}"))
        files.remove(layout.train(name))
        files.remove(layout.scores(f"{name}-dynamics"))
        forget_features(layout, name)
    if not beside:  # retrainings are by the same recipe
        files.remove(layout.sweep)
    files.remove(files.join(layout.url, INFLUENCE))
    if not config.score.is_own:
        _forget_scores(layout, network, beside)


def _forget_scores(layout: RunLayout, network: str, beside: bool = False) -> None:
    """Removes scores and what was drawn by them; with `beside` those of a network as above."""
    log.warning(
        "score-%s: is done again; the scores and what was drawn by them are removed", network
    )
    for name in [network] if beside else _with_replicates(layout, "score", network):
        files.remove(layout.marker(f"score-{name}"))
        files.remove(layout.scores(name))
        forget_features(layout, name)
    files.remove(files.join(layout.url, INFLUENCE))
    subsets = files.join(layout.url, "subsets")
    for folder, _ in files.list_entries(subsets, f"{folder_name(network)}-") if beside else ():
        files.remove(files.join(subsets, folder))
    if not beside:
        files.remove(subsets)
    forget_trials(layout, network if beside else None)


def _with_replicates(layout: RunLayout, kind: str, network: str) -> list[str]:
    """Returns a network's name, and those of networks that were trained from other seeds."""
    own = one_name(f"{kind}-{network}")
    found = [name.removeprefix(own) for name in layout.marked() if name.startswith(f"{own}-seed")]
    return [network, *(f"{network}{seed}" for seed in found)]


def forget_features(layout: RunLayout, name: str) -> None:
    """Removes the features of a network that were made beside its scores."""
    own = one_name(f"features-{name}")
    for stage in layout.marked():
        # Those of single checkpoints of the network have their digest behind its name.
        if stage == own or stage.startswith(f"{own}@"):
            made = f"{name}{stage.removeprefix(own)}"
            files.remove(layout.marker(f"features-{made}"))
            files.remove(layout.features(made))


def forget_trials(layout: RunLayout, name: str | None = None) -> None:
    """Removes retrainings on subsets by scores; a random subset owes nothing to them.

    Args:
        layout: The run folder.
        name: Only those by the scores in the folder of this name.
    """
    rows = ResultRows(layout.sweep, layout.results)
    rows.remove(
        [
            trial
            for trial, row in rows.rows.items()
            if row["method"] != "random" and name in (None, *_scored_by(row))
        ]
    )


def _scored_by(row: Mapping[str, Any]) -> list[str]:
    """Returns the names of the folders that a row's scores can be in."""
    network, seed = row.get("score_network"), row.get("score_seed")
    if network is None or row.get("score_run") is not None:
        return []
    return [network] if seed is None else [network, replicate_name(network, seed)]


def forget_retrainings(layout: RunLayout, config: StudyConfig) -> bool:
    """Removes retrainings by other code, loss or first weights; returns whether there were any.

    Args:
        layout: The run folder.
        config: The study.
    """
    networks = config.sweep.networks or (config.train.network,)
    shared = code_of(config.train.loss, start_from=config.train.start_from)
    url = files.join(layout.sweep, CODE)
    was = read_json(url) if files.exists(url) else {}
    changed = {
        n for n, code in {**code_of(*networks), **shared}.items() if was.get(n, code) != code
    }
    if not changed:
        return False
    log.warning("sweep: is done again by the code of %s as it is now", ", ".join(sorted(changed)))
    rows = ResultRows(layout.sweep, layout.results)
    # The loss and the first weights are those of all networks.
    rows.remove_networks(None if changed & shared.keys() else changed)
    write_json(url, {name: code for name, code in was.items() if name not in changed})
    return True
