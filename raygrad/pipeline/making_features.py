"""The stage features: what the last layer reads of every image, in a pass of its own."""

import dataclasses
import logging
import time

from raygrad.config import StudyConfig
from raygrad.engine.score import job as score_engine
from raygrad.engine.session import ensure_ray
from raygrad.pipeline.noticing import code_of, refuse_changed_shards
from raygrad.pipeline.replicates import compared_networks, trained_replicates
from raygrad.pipeline.score_inputs import ScoreInputs, score_inputs
from raygrad.pipeline.scoring import scoring_task
from raygrad.pipeline.stages import completed, facts_of, origin_facts
from raygrad.runs import score_table
from raygrad.runs.feature_draws import vectors_there
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import digest, write_marker

log = logging.getLogger("raygrad")


def make_features(stored: StudyConfig, name: str) -> str:
    """Makes the features and errors of a network that scored; returns their folder.

    Args:
        stored: The run's configuration.
        name: The name of the network's folders.

    Raises:
        ConfigError: The network has no last linear layer, or its weights have changed.
        IncompleteError: A shard was given up; what is done is kept.
    """
    config = _config_of(stored, name)
    return make_vectors(config, name, name, score_inputs(config, name))


def make_vectors(config: StudyConfig, name: str, folder: str, inputs: ScoreInputs) -> str:
    """Makes features and errors of every training image, a stage of its own.

    Scores stay as they are; shards whose features are there are not looked at again.

    Args:
        config: The study that the network is of.
        name: The name of the network's folders.
        folder: The name of the folder below features/.
        inputs: The network and its images, of one checkpoint or of several; the first is taken.

    Returns:
        The folder of the table that has them.

    Raises:
        ConfigError: As of `make_features`.
        IncompleteError: As of `make_features`.
    """
    layout = RunLayout(config.run)
    refuse_changed_shards(config)
    prepared = facts_of(layout, "prepare")
    inputs = dataclasses.replace(
        inputs, provenance={**inputs.provenance, "columns": "loss", "features": "True"}
    )
    stage, url = f"features-{folder}", layout.features(folder)
    code = code_of(config.scored_network, inputs.loss)
    marker = completed(layout, stage, inputs.digest, code)
    if marker is not None and marker["data"] == prepared["digest"]:
        if not score_table.lacking_files(url) and vectors_there(url):
            return url
        log.warning("%s: files were removed and are made again", stage)
        files.remove(url)
    start_s = time.monotonic()
    with recorded(layout.journal, stage):
        log.info("%s: starts", stage)
        ensure_ray()
        task = dataclasses.replace(
            scoring_task(config, layout, name, inputs),
            out_url=url, columns=("loss",), features=True,
        )  # fmt: skip
        done = {
            **score_engine.score(config.score, task, config.wait_s),
            "data": prepared["digest"],
            "digest": digest({"inputs": inputs.digest, "data": prepared["digest"]}),
            **origin_facts("score", code),
        }
        write_marker(layout.marker(stage), inputs.digest, **done)
    log.info("%s: complete in %.1f s", stage, time.monotonic() - start_s)
    return url


def _config_of(stored: StudyConfig, name: str) -> StudyConfig:
    """Returns the configuration that a network of this name was trained by."""
    others = [*trained_replicates(stored), *compared_networks(stored)]
    return next((config for config, other in others if other == name), stored)
