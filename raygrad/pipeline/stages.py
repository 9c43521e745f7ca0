"""What a stage is: inputs, outputs and a completion marker; complete stages are skipped."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raygrad import stopping
from raygrad.config import StudyConfig
from raygrad.config_values import identity
from raygrad.data.shards import DATASET_FILE
from raygrad.data.transforms import CropTransform
from raygrad.errors import ConfigError
from raygrad.pipeline.noticing import (
    RESULTS,
    changed_error,
    refuse_changed_code,
    tell_of_older_results,
)
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, read_marker, write_marker

log = logging.getLogger("raygrad")


def stage(
    layout: RunLayout,
    name: str,
    inputs: str,
    do: Callable[[], dict[str, Any]],
    code: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Does a stage unless it is complete, marks it complete, and returns its facts.

    Args:
        layout: The run folder.
        name: The stage.
        inputs: The digest of what decides its outcome.
        do: Does it; returns facts that later stages need.
        code: Digests of the user's own code that it runs, by name.
    """
    url = layout.marker(name)
    stopping.go_on()
    marker = completed(layout, name, inputs, code)
    if marker is not None:
        log.info("%s: complete, skipped", name)
        return marker
    start_s = time.monotonic()
    with recorded(layout.journal, name):
        log.info("%s: starts", name)
        facts = do()
        write_marker(url, inputs, **facts, **origin_facts(name, code))
    log.info("%s: complete in %.1f s", name, time.monotonic() - start_s)
    return facts


def origin_facts(name: str, code: dict[str, str] | None) -> dict[str, Any]:
    """Returns what a marker says of code and versions that its stage came from."""
    version, _ = RESULTS.get(name.split("-")[0], (1, ""))
    return {"code": code or {}, "results_version": version}


def completed(
    layout: RunLayout, name: str, inputs: str, code: dict[str, str] | None = None
) -> dict[str, Any] | None:
    """Returns the facts of a stage that is complete, None otherwise.

    Raises:
        ConfigError: It was completed with other inputs, or by other code.
    """
    marker = read_marker(layout.marker(name))
    if marker is not None and marker["inputs_digest"] != inputs:
        raise changed_error(name, layout, "another configuration, or another stage before it")
    if marker is not None:
        refuse_changed_code(name, layout, marker.get("code"), code or {})
        tell_of_older_results(name, marker)
    return marker


def training_inputs(config: StudyConfig) -> str:
    """Returns the digest of what decides the outcome of the stage train."""
    data_digest = facts_of(RunLayout(config.run), "prepare")["digest"]
    return digest({"data": data_digest, **identity(config.train)})


def retraining_inputs(config: StudyConfig, network: str) -> str:
    """Returns the digest of the recipe and the data that a network is retrained by."""
    return training_inputs(replace(config, train=replace(config.train, network=network)))


def facts_of(layout: RunLayout, stage: str) -> dict[str, Any]:
    """Returns what a stage that must be complete left in its marker."""
    marker = read_marker(layout.marker(stage))
    if marker is None:
        command = stage.split("-")[0]
        raise ConfigError(
            f"stage {stage} must be complete, got none in {layout.url}. "
            f"Do it first: raygrad {command} --run {layout.url}."
        )
    return marker


def facts_of_data(layout: RunLayout) -> dict[str, Any]:
    """Returns what is known of a prepared data set: its classes, their number, channels, size."""
    return dict(read_json(files.join(layout.data, DATASET_FILE)))


def transform_of(facts: dict[str, Any]) -> CropTransform | None:
    """Returns how a data set's images become squares of one size, None where they stay."""
    size = facts.get("image_size")  # not in run folders of before there was the field
    return None if size is None else CropTransform.to_size(size)
