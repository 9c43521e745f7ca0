"""The stage score: the table of scores of a network, the run's trained one or one of your own."""

import logging
import time
from typing import Any

from raygrad.config import ScoreConfig, StudyConfig
from raygrad.data.fingerprint import Seen
from raygrad.engine.score import job as score_engine
from raygrad.engine.score.networks import TABLE_COLUMNS
from raygrad.engine.score.pool import scoring_placement
from raygrad.engine.score.task import ScoreTask
from raygrad.engine.session import ensure_ray
from raygrad.pipeline.noticing import code_of, refuse_changed_shards
from raygrad.pipeline.replicates import compared_networks, trained_replicates
from raygrad.pipeline.score_inputs import ScoreInputs, check_weights, score_inputs
from raygrad.pipeline.stages import completed, facts_of, origin_facts
from raygrad.runs import score_table
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.scoring import check_columns
from raygrad.storage.manifest import digest, write_marker

log = logging.getLogger("raygrad")


def score(config: StudyConfig, seen: Seen | None = None) -> dict[str, Any]:
    """Scores every training example; returns the facts of the table of the run's own network.

    With `score_seeds` every network that was trained from one of them is scored too, and so is each
    of `compare_networks`. A table that
    is complete is left as it is, unless shards were added to the data set or parts were removed
    since: then these are scored, and nothing else.

    Args:
        config: The study.
        seen: What `index_shards` has just seen of the shards.

    Raises:
        ConfigError: A column is unknown, or the network, its weights and the data do not fit.
        IncompleteError: A shard was given up; the others' scores are kept.
    """
    check_columns(config.score.columns, TABLE_COLUMNS)
    others = [*trained_replicates(config), *compared_networks(config)]
    facts_of(RunLayout(config.run), "prepare")
    if config.score.is_own and config.select.compare_networks:
        names = " ".join(config.select.compare_networks)
        log.info("score: %s: not compared with a network of your own", names)
    refuse_changed_shards(config, seen)
    facts = _score(config, config.scored_network)
    for other, name in others:
        _score(other, name)
    return facts


def _score(config: StudyConfig, network: str) -> dict[str, Any]:
    """Scores with the network of a name, into the table of that name."""
    layout = RunLayout(config.run)
    prepared = facts_of(layout, "prepare")
    inputs = score_inputs(config, network)
    name, code = f"score-{network}", code_of(config.scored_network, inputs.loss)
    marker = completed(layout, name, inputs.digest, code)
    if marker is not None and marker["data"] == prepared["digest"]:
        lacking = score_table.lacking_files(layout.scores(network))
        if not lacking:
            log.info("%s: complete, skipped", name)
            return marker
        log.warning("%s: %s was removed and is made again", name, ", ".join(lacking[:3]))
    check_weights(config.score)
    if config.score.fresh_weights:
        log.warning(
            "%s: these are fresh random weights (seed %d), which know nothing of the data",
            name,
            config.score.weights_seed,
        )
    start_s = time.monotonic()
    with recorded(layout.journal, name):
        log.info("%s: starts", name)
        if config.score.is_own:
            log.info("%s: %s", name, _seen_as(config.score))
        ensure_ray()
        done = {
            **score_engine.score(
                config.score, scoring_task(config, layout, network, inputs), config.wait_s
            ),
            "data": prepared["digest"],
            "fresh_weights": config.score.fresh_weights,
            "digest": digest({"inputs": inputs.digest, "data": prepared["digest"]}),
            **origin_facts(name, code),
        }
        write_marker(layout.marker(name), inputs.digest, **done)
    log.info("%s: complete in %.1f s", name, time.monotonic() - start_s)
    return done


def _seen_as(config: ScoreConfig) -> str:
    """Says how the user's network sees images: a wrong size or mean shows in no number."""
    size, mean, std = config.image_size, *(map("{:g}".format, v) for v in (config.mean, config.std))
    return (
        f"images are scaled to {config.scaled_to}, cut to {size}x{size}, minus {' '.join(mean)}, "
        f"over {' '.join(std)} (--resize, --image-size, --mean, --std)"
    )


def scoring_task(
    study: StudyConfig, layout: RunLayout, network: str, inputs: ScoreInputs
) -> ScoreTask:
    """Returns what the actors are told, for the table of a network of this name."""
    config = study.score
    placed = scoring_placement(config)
    for note in placed.notes:
        log.warning("score: %s", note)
    return ScoreTask(
        data_url=layout.data,
        out_url=layout.scores(network),
        networks=inputs.sources,
        digests=inputs.weights_digests(),
        preprocess=inputs.preprocess,
        columns=config.columns,
        provenance=inputs.provenance,
        loss=inputs.loss,
        features=config.features,
        device=placed.device,
        actors_per_gpu=config.actors_per_gpu,
        numerics=config.numerics,
        channels_last=config.channels_last,
        batch_size=config.batch_size,
        decode_threads=placed.threads,
        cpus=placed.each["CPU"],
        max_reject_share=study.data.max_reject_share,
        shard_timeout_s=config.shard_timeout_s,
    )
