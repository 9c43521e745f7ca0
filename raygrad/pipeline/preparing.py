"""The stage prepare: shards and their index."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from raygrad.config import DEFAULT_WAIT_S, DataConfig, StudyConfig
from raygrad.config.nodes import selector_of
from raygrad.config_values import identity
from raygrad.data.export import export_subset
from raygrad.data.fingerprint import Seen
from raygrad.data.index import (
    build_index,
    build_index_files,
    read_index,
    read_shard_table,
    write_index,
)
from raygrad.data.index_building import Head, IndexOptions
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.limiting import index_of_first_shards, limited_source
from raygrad.data.places import Data, TableOptions, resolve
from raygrad.data.shards import DATASET_FILE, write_shards
from raygrad.data.sources import SOURCES, HeldOut, Source, check_source
from raygrad.data.stored_index import StoredIndex
from raygrad.data.table_files import ENDINGS as TABLE_ENDINGS
from raygrad.engine import parallel
from raygrad.engine.session import ensure_ray
from raygrad.engine.waiting import Need, wait_for
from raygrad.errors import ConfigError, DataError
from raygrad.pipeline.data_settings import (
    refuse_unused,
    refuse_unused_of_folders,
    refuse_unused_of_shards,
)
from raygrad.pipeline.noticing import (
    changed_error,
    record,
    shard_change,
    source_change,
    taken,
)
from raygrad.pipeline.stages import stage
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout
from raygrad.runs.reject_table import rejects_url, write_rejects
from raygrad.runs.subsets import read_subset
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, read_marker, write_json, write_marker

log = logging.getLogger("raygrad")

_SMALL_BYTES = 64 << 20
"""Shards of so much in all are scanned sooner here than the first process for it is there."""
_SHARDS_PER_STEP, _MOST_AT_ONCE = 1000, 32
"""For each so many shards one task scans one more: a thousand tasks keep any cluster busy."""

_Urls = tuple[Sequence[str], Sequence[str]]
"""Training and test shards."""


def prepare(config: StudyConfig) -> None:
    """Writes the data set's shards and their index; indexes your own shards where some are named.

    Raises:
        ConfigError: The source's files are not there, or shards are named wrongly.
        DataError: More examples are unusable than is accepted.
    """
    layout, data = RunLayout(config.run), config.data
    if files.exists(layout.marker("prepare")):
        seen = Seen()
        changed = source_change(layout, data, seen) or shard_change(layout, data, seen)
        if changed is not None:
            raise changed_error("prepare", layout, changed)
    stage(layout, "prepare", digest(identity(data)), lambda: _prepare(config, layout))


def index_shards(config: StudyConfig) -> Seen | None:
    """Indexes the run's own shards, again where there are more of them than there were.

    Returns the shards as they were seen where nothing was to be done: who goes on at once need not
    look again. None where they were indexed, which takes time.

    Raises:
        ConfigError: A shard that was indexed is no longer named.
        DataError: More examples are unusable than is accepted.
    """
    layout, data = RunLayout(config.run), config.data
    marker = read_marker(layout.marker("prepare"))
    if marker is not None:
        given = resolved(data)
        if given.source is not None:
            prepare(config)
            return None
        known = set(read_shard_table(layout.data)["source"].to_pylist())
        named = {*given.train_urls, *given.test_urls}
        seen = Seen()
        changed = shard_change(layout, data, seen)
        if changed is not None and known <= named:
            raise changed_error("prepare", layout, changed)
        if known == named:
            log.info("prepare: complete, skipped")
            return seen
        if not known <= named:
            raise ConfigError(
                f"shards that are indexed must stay in the data set, got none of "
                f"{sorted(known - named)[:3]}. Name them too, or another --run."
            )
        log.info("prepare: %d new shards", len(named - known))
    with recorded(layout.journal, "prepare"):
        facts = _prepare(config, layout)
        write_marker(layout.marker("prepare"), digest(identity(data)), **facts)
    return None


def _prepare(config: StudyConfig, layout: RunLayout) -> dict[str, Any]:
    data = config.data
    before = taken(data)
    given = _used(data, is_new=not files.exists(layout.marker("prepare")))
    # What is wrong with the data's names is said before Ray, which takes seconds, is started.
    ensure_ray()
    wait_for("prepare", Need(1, {"CPU": 1.0}, selector_of(data.nodes)), config.wait_s)
    urls: _Urls = (given.train_urls, given.test_urls)
    facts: dict[str, Any] = {"channels": data.channels, "classes": given.classes}
    if given.source is not None:
        urls, facts = _write_source(given, data, data.out or layout.shards, config.wait_s)
        facts["channels"] = data.channels if data.tars else facts["channels"]
    head = _write_index(data, given, urls, facts["classes"], layout, config.wait_s)
    for note in (*given.notes, *head.notes):
        log.warning("prepare: %s", note)
    with StoredIndex(layout.data) as index:
        labels, num_examples, content = index.labels(), index.num_examples, index.digest()
    if len(train := labels.get("train", Counter[int]())) == 1:
        name = head.classes[next(iter(train))]
        log.warning("prepare: every training example is of one class, %s: no labels to learn", name)
    if data.val_fraction and "test" not in labels:  # it is meant to be trained on
        log.warning("prepare: there is no test split, which training needs: name it, --test-tars")
    facts |= {"classes": list(head.classes), "num_classes": len(head.classes)}
    facts["image_size"] = data.image_size
    write_json(files.join(layout.data, DATASET_FILE), facts)
    record(layout, before, is_written=given.source is not None)
    counts = {"num_examples": num_examples, "num_rejects": head.rejects.num_rows}
    log.info("prepare: %(num_examples)d examples, %(num_rejects)d rejects", counts)
    size = data.image_size
    return {"digest": content if size is None else digest([content, size]), **counts}


def is_place(name: str) -> bool:
    """Tells whether a name is of a folder or file of data, and of no source."""
    is_path = "/" in name or name.endswith((".tar", *TABLE_ENDINGS))
    return name not in SOURCES and (is_path or files.exists(name))


def resolved(data: DataConfig) -> Data:
    """Returns the shards that the configuration names, or the source of those to be written.

    Raises:
        ConfigError: Something is not there, or is nothing that can be read.
    """
    held_out = HeldOut(data.test_fraction, data.split_seed)
    if data.tars:
        label = "" if data.labels == "cls" else data.labels
        options = TableOptions(data.image, label, data.renumber)
        return resolve(data.tars, data.test_tars, held_out=held_out, options=options)
    check_source(data.source)
    folder = files.absolute(data.data_dir) if data.data_dir else None
    source = SOURCES[data.source](folder, download=data.download, held_out=held_out)
    return Data(source=source, name=data.source)


def check_data(data: DataConfig) -> None:
    """Checks, before Ray is started or anything is removed, that data can be prepared.

    Raises:
        ConfigError: Something is not there, is nothing that can be read, or is given what says
            nothing of it.
    """
    refuse_unused(data)
    _used(data, is_new=True)


def _used(data: DataConfig, is_new: bool) -> Data:
    """Returns what `resolved` does, where all settings are of it."""
    given = resolved(data)
    if data.tars and given.name == "image-folder":
        refuse_unused_of_folders(data, data.tars[0])
    if given.source is None:
        refuse_unused_of_shards(data, is_new=is_new)
    return given


def _few(urls: _Urls) -> int:
    """Returns how many shards are scanned in this process: more where all are small and here."""
    shards = [shard for split in urls for shard in split]
    num_bytes = 0
    for shard in shards:
        # The first that settles it ends the look: very many shards are not asked for in turn.
        if num_bytes > _SMALL_BYTES or not (files.is_local(shard) and os.path.isfile(shard)):
            return parallel.FEW
        num_bytes += os.path.getsize(shard)
    return len(shards) if num_bytes <= _SMALL_BYTES else parallel.FEW


def _at_once(urls: _Urls) -> int:
    """Returns how many shards one task scans: more than one where there are thousands."""
    return min(_MOST_AT_ONCE, max(1, sum(map(len, urls)) // _SHARDS_PER_STEP))


def _write_index(
    data: DataConfig,
    given: Data,
    urls: _Urls,
    classes: Sequence[str],
    layout: RunLayout,
    wait_s: float,
) -> Head:
    """Writes the index of shards into the run folder; returns what it comes to."""
    is_written = given.source is not None
    options = IndexOptions(
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        labels="cls" if is_written else data.labels,
        image="" if is_written else data.image,
        renumber=data.renumber,
        classes=classes,
        unpack_to=files.join(layout.shards, "unpacked"),
        max_reject_share=data.max_reject_share,
        strict=data.strict,
        map_fn=functools.partial(
            parallel.few_here,
            nodes=data.nodes,
            few=_few(urls),
            at_once=_at_once(urls),
            wait_s=wait_s,
        ),
    )
    if data.max_examples is None:
        finish = functools.partial(_with_rejects, source=given.source, data=data)
        return build_index_files(layout.data, *urls, options, finish)
    # Few training shards need not hold every class that the test shards hold; that is no damage.
    tolerant = functools.partial(build_index, **vars(replace(options, max_reject_share=1.0)))
    index = index_of_first_shards(tolerant, *urls, data.max_examples)
    # Notes are of the shards that it took, not of what was kept.
    head = Head(index.examples.num_rows, index.shards, index.rejects, index.classes, notes=())
    if given.source is not None:
        head = _with_rejects(head, given.source, data, _num_found(given.source))
    write_index(layout.data, replace(index, rejects=head.rejects))
    return head


def _num_found(source: Source) -> int:
    """Returns how many examples a source can give, of which fewer may be asked for."""
    return len(source.train) + len(source.test)


def _with_rejects(
    head: Head, source: Source | None, data: DataConfig, num_used: int | None = None
) -> Head:
    """Adds what the source could not use to the index's rejects.

    Args:
        head: The index.
        source: What the shards were written from; None where they are the user's own.
        data: How much may be rejected.
        num_used: Of how many examples; by default those of the index.

    Raises:
        DataError: It is more than is accepted; one odd file never is.
    """
    if source is None:
        return head
    rejects = _accepted(source, data, head.num_examples if num_used is None else num_used)
    rejects = pa.concat_tables([rejects, head.rejects])
    return replace(head, rejects=rejects, notes=(*source.notes, *head.notes))


def _accepted(source: Source, data: DataConfig, num_used: int) -> pa.Table:
    """Returns what a source could not use, as a reject table, unless it is more than is accepted.

    Raises:
        DataError: It is more; one odd file never is.
    """
    rows = [{"shard": "", "key": place, "reason": reason} for place, reason in source.rejects]
    lost = source.num_lost
    if lost > max(0 if data.strict else 1, data.max_reject_share * (num_used + lost)):
        raise DataError(
            f"at most {data.max_reject_share:.3%} of the examples may be rejected, got {lost} "
            f"against {num_used} usable, such as {rows[0]['key']!r}: {rows[0]['reason']}. "
            "Mend them, or accept more: --max-reject-share."
        )
    return pa.Table.from_pylist(rows, REJECT_SCHEMA)


def write_source(data: DataConfig, out: str) -> list[str]:
    """Writes a source's shards outside any run; returns their URLs.

    What could not be used stands in ``rejects.parquet`` beside them.

    Raises:
        ConfigError: The source's files are not there, or it is shards already.
        DataError: More examples are unusable than is accepted.
    """
    given = resolved(data)
    if given.source is None:
        raise ConfigError(
            f"what is written as shards must be no shards, got {data.tars}. "
            "Index them as they are: raygrad index."
        )
    rejects = _accepted(given.source, data, _num_found(given.source))
    ensure_ray()
    (train_urls, test_urls), _ = _write_source(given, data, out)
    if rejects.num_rows or files.exists(rejects_url(files.absolute(out))):
        write_rejects(files.absolute(out), rejects.to_pylist())
    for note in (*given.notes, *given.source.notes):
        log.warning("prepare: %s", note)
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
        map_fn=functools.partial(parallel.ray_map, stage="export"),
    )


def _write_source(
    given: Data, data: DataConfig, out: str, wait_s: float = DEFAULT_WAIT_S
) -> tuple[_Urls, dict]:
    """Writes a source's shards; returns the training and test URLs and what the data set is."""
    source, out = given.source, files.absolute(out)
    assert source is not None
    if data.max_examples is not None:
        source = limited_source(source, data.max_examples)
    written = write_shards(
        source,
        given.name,
        out,
        map_fn=functools.partial(parallel.ray_map, nodes=data.nodes, wait_s=wait_s),
        **_writing(data),
    )
    return (written.train_urls, written.test_urls), read_json(files.join(out, DATASET_FILE))


def _writing(data: DataConfig) -> dict[str, int]:
    return {"shard_bytes": data.shard_bytes, "seed": data.split_seed}
