"""The stage score: the table of scores of a network, the run's trained one or one of your own."""

import logging
import time
from typing import Any

import torch

import raygrad
from raygrad.config import ScoreConfig, StudyConfig
from raygrad.data import score_table, storage
from raygrad.data.layout import RunLayout
from raygrad.data.manifest import digest, read_json, read_marker, write_marker
from raygrad.data.shards import DATASET_FILE
from raygrad.data.transforms import CropTransform
from raygrad.engine import score as score_engine
from raygrad.engine.score_networks import TABLE_COLUMNS
from raygrad.engine.score_pool import choose_device, decode_threads
from raygrad.engine.score_task import Preprocess, ScoreTask
from raygrad.engine.session import ensure_ray
from raygrad.errors import ConfigError
from raygrad.pipeline.stages import facts_of, transform_of
from raygrad.scoring import check_columns
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource, weights_digest
from raygrad.training.preprocess import Normalize

log = logging.getLogger("raygrad")

_IMAGENET_SIZE, _IMAGENET_RESIZE = 224, 256
_VERSIONS = ("raygrad", "torch")


def score(config: StudyConfig) -> dict[str, Any]:
    """Scores every training example; returns the table's facts.

    A table that is complete is left as it is, unless shards were added to the data set or parts
    were removed since: then these are scored, and nothing else.

    Raises:
        ConfigError: A column is unknown, or the network, its weights and the data do not fit.
        IncompleteError: A shard was given up; the others' scores are kept.
    """
    layout, network = RunLayout(config.run), config.train.network
    check_columns(config.score.columns, TABLE_COLUMNS)
    prepared = facts_of(layout, "prepare")
    facts = read_json(storage.join(layout.data, DATASET_FILE))
    if config.score.is_own:
        sources, preprocess = _own(config.score, network, facts)
        weights = digests = tuple(weights_digest(source.build()) for source in sources)
    else:
        trained = facts_of(layout, f"train-{network}")["digest"]
        sources, preprocess = _trained(layout.checkpoint(network), facts)
        weights, digests = (trained,), ()
    provenance = {
        "network": network,
        "checkpoint": ",".join(weights),
        "preprocess": digest(preprocess),
        "classes": _class_numbering(facts["classes"]),
        "columns": ",".join(config.score.columns),
        "dtype": config.score.dtype,
        "features": str(config.score.features),
        "raygrad": raygrad.__version__,
        "torch": torch.__version__,
    }
    # What is complete stays so when a library is newer; only parts of two versions do not mix.
    inputs = digest({k: v for k, v in provenance.items() if k not in _VERSIONS})
    marker_url = layout.marker(f"score-{network}")
    marker = read_marker(marker_url)
    if marker is not None and marker["inputs_digest"] != inputs:
        raise ConfigError(
            f"stage score-{network} must have the inputs it was completed with, got others in "
            f"{layout.url}. Name another --run, or remove {marker_url} and the score table."
        )
    if marker is not None and marker["data"] == prepared["digest"]:
        lacking = score_table.lacking_files(layout.scores(network))
        if not lacking:
            log.info("score-%s: complete, skipped", network)
            return marker
        log.warning("score-%s: %s was removed and is made again", network, ", ".join(lacking[:3]))
    log.info("score-%s: starts", network)
    start_s = time.monotonic()
    ensure_ray()
    digests = digests or tuple(weights_digest(source.build()) for source in sources)
    task = _task(config.score, layout, network, sources, digests, preprocess, provenance)
    done = {
        **score_engine.score(config.score, task),
        "data": prepared["digest"],
        "digest": digest({"inputs": inputs, "data": prepared["digest"]}),
    }
    write_marker(marker_url, inputs, **done)
    log.info("score-%s: complete in %.1f s", network, time.monotonic() - start_s)
    return done


def _task(
    config: ScoreConfig,
    layout: RunLayout,
    network: str,
    sources: tuple[NetworkSource, ...],
    digests: tuple[str, ...],
    preprocess: Preprocess,
    provenance: dict[str, str],
) -> ScoreTask:
    device = choose_device(config.device)
    return ScoreTask(
        data_url=layout.data,
        out_url=layout.scores(network),
        networks=sources,
        digests=digests,
        preprocess=preprocess,
        columns=config.columns,
        provenance=provenance,
        features=config.features,
        device=device,
        actors_per_gpu=config.actors_per_gpu,
        dtype=config.dtype,
        channels_last=config.channels_last,
        batch_size=config.batch_size,
        decode_threads=decode_threads(config, device),
        shard_timeout_s=config.shard_timeout_s,
    )


def _trained(checkpoint_url: str, facts: dict) -> tuple[tuple[NetworkSource, ...], Preprocess]:
    """Returns the run's trained network, which sees images as they are stored."""
    checkpoint = load_checkpoint(checkpoint_url)
    source = NetworkSource(checkpoint.network, checkpoint.spec, checkpoint_url)
    return (source,), Preprocess(facts["channels"], transform_of(facts), checkpoint.normalize)


def _own(
    config: ScoreConfig, network: str, facts: dict
) -> tuple[tuple[NetworkSource, ...], Preprocess]:
    """Returns the user's network once a checkpoint, and the preprocessing of the flags.

    Raises:
        ConfigError: Labels or channels are more than the network is for.
    """
    channels, num_labels = facts["channels"], facts["num_classes"]
    num_classes = config.num_classes or num_labels
    if num_labels > num_classes:
        raise ConfigError(
            f"num_classes must count every label, got {num_classes} for labels up to "
            f"{num_labels - 1}. Give the network's --num-classes, or other --labels."
        )
    if len(config.mean) != channels:
        raise ConfigError(
            f"mean and std must have a value for each of {channels} channels, "
            f"got {len(config.mean)}. Give --mean and --std."
        )
    size = config.image_size
    default = _IMAGENET_RESIZE if size == _IMAGENET_SIZE else size
    transform = CropTransform(config.resize or default, size, config.keep_aspect)
    if not config.checkpoint:
        log.warning(
            "score: NO CHECKPOINT: %s has fresh random weights (seed %d), which know nothing of "
            "the data; give --checkpoint for a trained network",
            network,
            config.weights_seed,
        )
    spec = ImageSpec(channels, size, size, num_classes)
    urls: list[str | None] = [storage.absolute(url) for url in config.checkpoint]
    sources = tuple(
        NetworkSource(network, spec, url, config.weights_seed) for url in urls or [None]
    )
    return sources, Preprocess(channels, transform, Normalize(config.mean, config.std))


def _class_numbering(classes: list[str]) -> str:
    """Returns what labels' numbers mean; plain numbers mean themselves, however many there are."""
    plain = classes == [str(number) for number in range(len(classes))]
    return "numbers" if plain else digest(classes)
