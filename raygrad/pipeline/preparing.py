"""The stage prepare: shards and their index."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

from raygrad.config import DataConfig, StudyConfig
from raygrad.config_values import identity
from raygrad.data.export import export_subset
from raygrad.data.index import Index, build_index, read_index, read_shard_table, write_index
from raygrad.data.limiting import index_of_first_shards, limited_source
from raygrad.data.shards import DATASET_FILE, write_shards
from raygrad.data.sources import SOURCES, check_source
from raygrad.engine import parallel
from raygrad.engine.session import ensure_ray
from raygrad.errors import ConfigError
from raygrad.pipeline.stages import stage
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.runs.subsets import read_subset
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, read_marker, write_json, write_marker
from raygrad.storage.urls import expand

log = logging.getLogger("raygrad")


def prepare(config: StudyConfig) -> None:
    """Writes the data set's shards and their index; indexes your own shards where some are named.

    Raises:
        ConfigError: The source's files are not there, or shards are named wrongly.
        DataError: More examples are unusable than is accepted.
    """
    layout, data = RunLayout(config.run), config.data

    stage(layout, "prepare", digest(identity(data)), lambda: _prepare(data, layout))


def index_shards(config: StudyConfig) -> None:
    """Indexes the run's own shards, again where there are more of them than there were.

    Raises:
        ConfigError: A shard that was indexed is no longer named.
        DataError: More examples are unusable than is accepted.
    """
    layout, data = RunLayout(config.run), config.data
    marker = read_marker(layout.marker("prepare"))
    if marker is not None:
        known = set(read_shard_table(layout.data)["url"].to_pylist())
        test = [files.absolute(url) for url in expand(data.test_tars)] if data.test_tars else []
        named = {files.absolute(url) for url in expand(data.tars)}.union(test)
        if known == named:
            log.info("prepare: complete, skipped")
            return
        if not known <= named:
            raise ConfigError(
                f"shards that are indexed must stay in the data set, got none of "
                f"{sorted(known - named)[:3]}. Name them too, or another --run."
            )
        log.info("prepare: %d new shards", len(named - known))
    with recorded(layout.journal, "prepare"):
        facts = _prepare(data, layout)
        write_marker(layout.marker("prepare"), digest(identity(data)), **facts)


def _prepare(data: DataConfig, layout: RunLayout) -> dict[str, Any]:
    ensure_ray()
    if data.tars:
        train_urls: Sequence[str] = [files.absolute(url) for url in expand(data.tars)]
        test = expand(data.test_tars) if data.test_tars else []
        test_urls: Sequence[str] = [files.absolute(url) for url in test]
        facts: dict[str, Any] = {"channels": data.channels}
    else:
        train_urls, test_urls, facts = _write_source(data, data.out or layout.shards)
    index = _build_index(data, train_urls, test_urls, facts.get("classes", ()))
    write_index(layout.data, index)
    facts |= {"classes": list(index.classes), "num_classes": len(index.classes)}
    facts["image_size"] = data.image_size
    write_json(files.join(layout.data, DATASET_FILE), facts)
    counts = {"num_examples": index.examples.num_rows, "num_rejects": index.rejects.num_rows}
    log.info("prepare: %(num_examples)d examples, %(num_rejects)d rejects", counts)
    size = data.image_size
    content = index.digest if size is None else digest([index.digest, size])
    return {"digest": content, **counts}


def _build_index(
    data: DataConfig, train_urls: Sequence[str], test_urls: Sequence[str], classes: Sequence[str]
) -> Index:
    build = functools.partial(
        build_index,
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        labels=data.labels if data.tars else "cls",
        classes=classes,
        max_reject_share=data.max_reject_share,
        strict=data.strict,
        map_fn=parallel.ray_map,
    )
    if data.max_examples is None:
        return build(train_urls, test_urls)
    # Few training shards need not hold every class that the test shards hold; that is no damage.
    tolerant = functools.partial(build, max_reject_share=1.0)
    return index_of_first_shards(tolerant, train_urls, test_urls, data.max_examples)


def write_source(data: DataConfig, out: str) -> list[str]:
    """Writes a source's shards outside any run; returns their URLs."""
    ensure_ray()
    train_urls, test_urls, _ = _write_source(data, out)
    return [*train_urls, *test_urls]


def export(run: str, subset_url: str, out: str, shard_bytes: int) -> list[str]:
    """Writes a subset of a run as new WebDataset shards; returns their URLs."""
    ensure_ray()
    subset, _ = read_subset(subset_url)
    keys, weights = subset["key"].to_pylist(), subset["weight"].to_pylist()
    return export_subset(
        read_index(RunLayout(run).data),
        keys,
        files.absolute(out),
        shard_bytes=shard_bytes,
        weights=None if set(weights) == {1.0} else dict(zip(keys, weights, strict=True)),
        map_fn=parallel.ray_map,
    )


def _write_source(data: DataConfig, out: str) -> tuple[Sequence[str], Sequence[str], dict]:
    check_source(data.source)
    out = files.absolute(out)
    folder = files.absolute(data.data_dir) if data.data_dir else None
    source = SOURCES[data.source](folder, download=data.download)
    if data.max_examples is not None:
        source = limited_source(source, data.max_examples)
    written = write_shards(
        source,
        data.source,
        out,
        shard_bytes=data.shard_bytes,
        seed=data.split_seed,
        map_fn=parallel.ray_map,
    )
    facts = read_json(files.join(out, DATASET_FILE))
    return written.train_urls, written.test_urls, facts
