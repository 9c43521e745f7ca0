"""Doing stages again: what came of them, and of what came of them, is removed first."""

import logging

from raygrad.config import StudyConfig
from raygrad.config_values import identity
from raygrad.data.fingerprint import Seen
from raygrad.errors import ConfigError
from raygrad.pipeline.noticing import code_of, shard_change, source_change, training_code
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.pipeline.stages import training_inputs
from raygrad.runs.layout import RunLayout, one_name
from raygrad.runs.result_rows import ResultRows
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_marker

log = logging.getLogger("raygrad")


def forget_changed(config: StudyConfig, at_least: str | None = None) -> None:
    """Removes what is complete of other inputs than the configuration's, and all that came of it.

    Args:
        config: The study, as it is asked for now.
        at_least: A stage that is done again even if nothing changed: prepare, train or score.
    """
    if _is_prepare_stale(config) or at_least == "prepare":
        _forget_data(RunLayout(config.run))
        return
    if _is_stale(config, f"train-{config.train.network}") or at_least == "train":
        _forget_training(config)
    if _is_stale(config, f"score-{config.scored_network}") or at_least == "score":
        _forget_scores(RunLayout(config.run), config.scored_network)


def _is_prepare_stale(config: StudyConfig) -> bool:
    layout, data = RunLayout(config.run), config.data
    marker = read_marker(layout.marker("prepare"))
    if marker is None:
        return False
    other = marker["inputs_digest"] != digest(identity(data))
    seen = Seen()
    return other or bool(source_change(layout, data, seen) or shard_change(layout, data, seen))


def _is_stale(config: StudyConfig, stage: str) -> bool:
    """Tells whether a stage is complete, and of other inputs or other code than now."""
    layout = RunLayout(config.run)
    marker = read_marker(layout.marker(stage))
    if marker is None:
        return False
    try:
        if stage.startswith("train-"):
            inputs, now = training_inputs(config), training_code(config)
        else:
            found = score_inputs(config)
            inputs, now = found.digest, code_of(config.scored_network, found.loss)
    except ConfigError:  # what it was made from is gone, or does not fit any more
        return True
    was = marker.get("code", now)
    if any(was.get(name, code) != code for name, code in now.items()):
        return True
    return bool(marker["inputs_digest"] != inputs)


def _forget_data(layout: RunLayout) -> None:
    log.warning(
        "prepare: is done again; all that came of the old data in %s is removed", layout.url
    )
    made = "stages", "data", "train", "scores", "features", "subsets", "sweep", "audit", "report"
    for folder in made:
        files.remove(files.join(layout.url, folder))


def _forget_training(config: StudyConfig) -> None:
    layout, network = RunLayout(config.run), config.train.network
    log.warning("train-%s: is done again; the network and its scores are removed", network)
    for name in _with_replicates(layout, "train", network):
        files.remove(layout.marker(f"train-{name}"))
        files.remove(layout.train(name))
        files.remove(layout.scores(f"{name}-dynamics"))
        forget_features(layout, name)
    # Retrainings are by the same recipe.
    files.remove(layout.sweep)
    if not config.score.is_own:
        _forget_scores(layout, network)


def _forget_scores(layout: RunLayout, network: str) -> None:
    log.warning(
        "score-%s: is done again; the scores and what was drawn by them are removed", network
    )
    for name in _with_replicates(layout, "score", network):
        files.remove(layout.marker(f"score-{name}"))
        files.remove(layout.scores(name))
        forget_features(layout, name)
    files.remove(files.join(layout.url, "subsets"))
    forget_trials(layout)


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


def forget_trials(layout: RunLayout) -> None:
    """Removes retrainings on subsets by scores; a random subset owes nothing to them."""
    rows = ResultRows(layout.sweep, layout.results)
    rows.remove([trial for trial, row in rows.rows.items() if row["method"] != "random"])
