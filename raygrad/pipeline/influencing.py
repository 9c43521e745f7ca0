"""Which training images pull the loss of an image: last-layer gradients over checkpoints."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raygrad.config import StudyConfig
from raygrad.data.index import Index, read_index
from raygrad.data.reading import read_rows, rows_of_keys
from raygrad.errors import ConfigError, DataError
from raygrad.pipeline.score_inputs import ScoreInputs, score_inputs
from raygrad.runs import score_table
from raygrad.runs.feature_draws import read_vectors, vectors_there
from raygrad.runs.influence_tables import INFLUENCE, inputs_now, write_influence
from raygrad.runs.layout import RunLayout, folder_name
from raygrad.selection.influence import Extremes, Factors, inner_products
from raygrad.storage import files
from raygrad.storage.manifest import read_json
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.features import FeatureTap
from raygrad.training.losses import DEFAULT_LOSS, build_loss
from raygrad.training.outside import NetworkSource

log = logging.getLogger("raygrad")


@dataclass(frozen=True)
class _Point:
    """A checkpoint that influence is summed over."""

    config: StudyConfig
    inputs: ScoreInputs
    """Its network, and how it sees images."""
    name: str
    """Names it in what is said."""
    weight: float
    """The learning rate there, or 1."""


@dataclass(frozen=True)
class Influence:
    """What pulls one image's loss."""

    query: str
    """Its key."""
    label_name: str
    """The name of its class."""
    rows: pa.Table
    """key, shard, label, label_name, influence, rank: those that lower its loss most, first, and
    those that raise it most, last."""
    url: str
    """Where the rows are written."""
    num_images: int
    """Training images that were looked at."""
    over: str
    """The checkpoints, in words."""


def influence(
    config: StudyConfig,
    keys: Sequence[str],
    *,
    checkpoints: Sequence[str] = (),
    top: int = 20,
    make: bool = False,
) -> list[Influence]:
    """Finds which training images pull the losses of some images, and writes them down.

    In memory is one shard's features at a time. The files are `<run>/influence/<key>.parquet`.

    Args:
        config: The run's configuration.
        keys: Images of any split.
        checkpoints: Files of weights to sum over, each counted alike; by default the epochs that
            training kept, by their learning rates, or the checkpoints that scored.
        top: How many images of each end are kept.
        make: Make the features of checkpoints that have none.

    Raises:
        ConfigError: A key, a checkpoint or its features are not there.
        DataError: The image cannot be decoded.
    """
    if top < 1 or not keys or len(set(keys)) < len(keys):
        raise ConfigError(
            f"keys must be different and top at least 1, got {list(keys)} and {top}. "
            "Give --key, or --worst."
        )
    layout = RunLayout(config.run)
    index = read_index(layout.data)
    try:
        rows = rows_of_keys(index, keys)
    except DataError as error:
        raise ConfigError(f"{str(error).split(' Name')[0]} Look one up: raygrad scores.") from error
    points = _points(config, layout, checkpoints)
    shards = set(index.rows("train")["shard"].to_pylist())
    urls = [_vectors_of(layout, point, shards, make) for point in points]
    extremes = _extremes(index, points, urls, rows, top)
    over = ", ".join(point.name for point in points)
    facts = inputs_now(layout, config.scored_network, config.score.is_own)
    facts["checkpoints"] = [point.inputs.provenance["checkpoint"] for point in points]
    results = []
    for at, (key, label) in enumerate(zip(keys, rows["label"].to_pylist(), strict=True)):
        url = files.join(layout.url, INFLUENCE, f"{folder_name(key)}.parquet")
        table = extremes.table(at)
        with_query = table.append_column("query", pa.array([key] * table.num_rows))
        write_influence(url, with_query, facts)
        results.append(
            Influence(key, index.classes[label], table, url, extremes.num_rows, over)
        )  # fmt: skip
    return results


def _extremes(
    index: Index, points: Sequence[_Point], urls: Sequence[str], rows: pa.Table, top: int
) -> Extremes:
    """Returns both ends of all training images, by what they pull of each of some rows."""
    queries = [_query_factors(point.inputs, index, rows) for point in points]
    extremes = Extremes(rows.num_rows, top)
    for shard in read_json(files.join(urls[0], score_table.MANIFEST))["shards"]:
        found = _shard_rows(index, urls[0], shard)
        if not found.num_rows:
            continue
        total = np.zeros((found.num_rows, rows.num_rows))
        for point, url, query in zip(points, urls, queries, strict=True):
            vectors = read_vectors(url, shard, found["key"], score_table.VECTORS)
            of = Factors(vectors["errors"], vectors["features"])
            total += point.weight * inner_products(of, query)
        _refuse_not_finite(found, total)
        extremes.add(found, total)
    return extremes


def _points(config: StudyConfig, layout: RunLayout, checkpoints: Sequence[str]) -> list[_Point]:
    """Returns the checkpoints that are summed over."""
    name = config.scored_network
    if config.score.is_own:
        urls = checkpoints or config.score.checkpoint
        if not urls:
            return [_Point(config, score_inputs(config), "fresh weights", 1.0)]
        return [_own_point(config, url) for url in urls]
    inputs = score_inputs(config)
    if checkpoints:
        return [_trained_point(config, inputs, url, url, 1.0) for url in checkpoints]
    kept = {e: layout.kept_checkpoint(name, e) for e in config.train.keep_epochs}
    kept = {epoch: url for epoch, url in kept.items() if files.exists(url)}
    if kept:
        history = read_json(layout.metrics(name))["history"]
        rates = {row["epoch"]: row["learning_rate"] for row in history}
        return [
            _trained_point(config, inputs, url, f"epoch {epoch}", rates[epoch])
            for epoch, url in kept.items()
        ]
    log.warning(
        "influence: one checkpoint, the best epoch's, says what pulls at the end of training; "
        "train with --keep-epochs to sum over more"
    )
    return [_Point(config, inputs, "the best epoch", 1.0)]


def _own_point(config: StudyConfig, url: str) -> _Point:
    config = dataclasses.replace(
        config, score=dataclasses.replace(config.score, checkpoint=(files.absolute(url),))
    )
    return _Point(config, score_inputs(config), url.rsplit("/", 1)[-1], 1.0)


def _trained_point(
    config: StudyConfig, inputs: ScoreInputs, url: str, name: str, weight: float
) -> _Point:
    checkpoint = load_checkpoint(files.absolute(url))
    source = NetworkSource(checkpoint.network, checkpoint.spec, files.absolute(url))
    if source.network != inputs.sources[0].network or source.spec != inputs.sources[0].spec:
        raise ConfigError(
            f"a checkpoint must be of the network that the run trained, "
            f"{inputs.sources[0].network}, got {source.network}, in {url}. Name another."
        )
    provenance = {**inputs.provenance, "checkpoint": checkpoint.digest()}
    changed = dataclasses.replace(
        inputs, sources=(source,), provenance=provenance, own_digests=()
    )  # fmt: skip
    return _Point(config, changed, name, weight)


def _vectors_of(layout: RunLayout, point: _Point, shards: set[str], make: bool) -> str:
    """Returns the folder of the table that has the features and errors of a checkpoint.

    Args:
        layout: The run folder.
        point: The checkpoint.
        shards: The shards of the training images: all are to be there.
        make: Make what is not there.
    """
    name, wanted, got = point.config.scored_network, point.inputs.provenance, "none"
    alone = f"{name}@{wanted['checkpoint'][:8]}"
    for url in (layout.features(alone), layout.features(name), layout.scores(name)):
        if set(vectors_there(url) or ()) == set(score_table.VECTORS):
            manifest = read_json(files.join(url, score_table.MANIFEST))
            if not _are_of(manifest["provenance"], wanted):
                continue
            lacking = len(shards - set(manifest["shards"]))
            if not lacking:
                return url
            got = f"those of {len(shards) - lacking} of {len(shards)} shards"
    if not make:
        raise ConfigError(
            f"influence needs features and errors of all training images at {point.name}, got "
            f"{got} in {layout.url}. Make them in a pass over the images: add --make-features."
        )
    from raygrad.pipeline.making_features import make_vectors  # with all of Ray Data

    log.info("features: of %s, for influence", point.name)
    url = make_vectors(point.config, name, alone, point.inputs)
    if "errors" not in (vectors_there(url) or ()):
        raise ConfigError(
            f"influence needs a network whose last linear layer makes its logits, got {name!r}, "
            "which goes on after that layer."
        )
    return url


def _are_of(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Tells whether features and errors are of the same weights, images, loss and code."""
    same = all(found.get(name) == wanted[name] for name in ("checkpoint", "preprocess", "classes"))
    # Tables of cross-entropy do not name it, and older ones do not say by what code they are.
    loss = found.get("loss", DEFAULT_LOSS) == wanted.get("loss", DEFAULT_LOSS)
    return same and loss and found.get("code", wanted.get("code")) == wanted.get("code")


def _query_factors(inputs: ScoreInputs, index: Index, rows: pa.Table) -> Factors:
    """Returns the factors of the gradients of the images of some rows, in their order."""
    encoded = {one.key: one for one in read_rows(index, rows)}
    pixels = [inputs.preprocess.decode(encoded[key]) for key in rows["key"].to_pylist()]
    tap, loss = FeatureTap(inputs.sources[0].build()), build_loss(inputs.loss)
    errors, features = [], []
    for image, label in zip(pixels, rows["label"].to_pylist(), strict=True):
        one = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        entered, logits = tap.of_last_layer(inputs.preprocess.normalize(one))
        assert logits is not None, "the features that are there have errors"
        features.append(entered[0].float().numpy())
        errors.append(loss.gradient(logits, torch.tensor([label]))[0].float().numpy())
    return Factors(np.stack(errors), np.stack(features))


def _shard_rows(index: Index, url: str, shard: str) -> pa.Table:
    """Returns key, shard, label and its name of the images of a shard that have features."""
    with files.open_input(score_table.part_url(url, shard)) as stream:
        table = pq.read_table(stream, columns=["key", "shard", "label"])
    names = [index.classes[label] for label in table["label"].to_pylist()]
    return table.append_column("label_name", pa.array(names, pa.string())).replace_schema_metadata(
        None
    )


def _refuse_not_finite(rows: pa.Table, values: np.ndarray) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"features and errors must be finite, got {int(bad.sum())} images whose are not, such "
            f"as {rows['key'][int(np.flatnonzero(bad)[0])]}. Half precision holds features up to "
            "65,504; score with another checkpoint."
        )
