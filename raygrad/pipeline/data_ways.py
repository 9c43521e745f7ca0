"""Where training has its images from: memory, each node's disk, or their shards, every epoch."""

import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from raygrad.config import DEFAULT_WAIT_S, DataConfig, StudyConfig
from raygrad.data.index import Index, read_index
from raygrad.data.streaming import GROUP_BYTES
from raygrad.engine.decoding import room_on_disks
from raygrad.engine.parallel import ray_map
from raygrad.engine.session import ensure_ray, joins_cluster
from raygrad.errors import ConfigError
from raygrad.pipeline.stages import facts_of_data, transform_of
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.training.study_data import StudyData, StudySource, decoded_bytes, load_study_data

log = logging.getLogger("raygrad")

_BUFFER = 32768
"""Examples that are mixed with each other, where this is suggested: runs of 128 from 256 places."""
_HERE_BYTES = 2**26
"""Data sets of so many bytes decoded are looked at sooner here than tasks are started."""


def training_data(config: StudyConfig) -> StudyData | StudySource:
    """Returns the data set for the stage train."""
    return _data(config, config.train.data, config.train.nodes)


def trial_data(config: StudyConfig) -> StudyData | StudySource:
    """Returns the data set for the stage sweep."""
    return _data(config, config.trial_data, config.sweep.nodes)


def _data(config: StudyConfig, way: str, nodes: tuple[str, ...]) -> StudyData | StudySource:
    layout, is_mixed = RunLayout(config.run), config.train.shuffle_buffer == 0
    # Where nobody asks which nodes, training and trials share what is loaded.
    nodes = nodes if way == "auto" and joins_cluster() else ()
    return study_data(
        layout, config.data, way, _photo(config), is_mixed, wait_s=config.wait_s, nodes=nodes
    )


def is_streamed(config: StudyConfig, for_trials: bool = False) -> bool:
    """Tells whether training, or retraining, will read and decode its images every epoch."""
    layout = RunLayout(config.run)
    facts = facts_of_data(layout)
    transform = transform_of(facts)
    needed = decoded_bytes(read_index(layout.data), facts["channels"], transform)
    way = config.trial_data if for_trials else config.train.data
    nodes = config.sweep.nodes if for_trials else config.train.nodes
    return _chosen(way, needed, config.data, _photo(config), nodes)[0] == "stream"


def _tell_requests(index: Index) -> None:
    """Says what an order without a buffer costs, of more on a server than is read at a time."""
    is_much = index.examples["size"].to_numpy().sum() > GROUP_BYTES
    if not is_much or files.is_local(index.shards["url"][0].as_py()):
        return
    log.info(
        "data: in an order that mixes all images each is a request of its own to storage; with a "
        "buffer, --train.shuffle-buffer %d, they are read in long pieces (and in another order)",
        _BUFFER,
    )


def _folder(config: DataConfig) -> str:
    """Returns the folder of decoded images on each node."""
    return config.cache_dir or os.path.join(tempfile.gettempdir(), "raygrad-images")


def _photo(config: StudyConfig) -> str | None:
    return config.train.photo_augmentation


@functools.lru_cache(maxsize=1)
def study_data(
    layout: RunLayout,
    config: DataConfig,
    way: str = "auto",
    photo: str | None = None,
    is_mixed: bool = False,
    wait_s: float = DEFAULT_WAIT_S,
    nodes: tuple[str, ...] = (),
) -> StudyData | StudySource:
    """Returns the data set of a run, and says where it is had from; loaded once a process.

    Args:
        layout: The run folder.
        config: `memory_bytes`, `cache_dir`, `cache_bytes` and `max_reject_share` are used.
        way: auto, memory, disk or stream.
        photo: The augmentation that cuts images out of their photographs, if there is one.
        is_mixed: Whether an epoch's order mixes all images, without a buffer.
        wait_s: How long room for a look at streamed images is waited for.
        nodes: Labels of the nodes whose disks would hold decoded images.

    Raises:
        ConfigError: Photographs are to be cut, to no size.
        TooManyRejectsError: More than `max_reject_share` of the images cannot be decoded.
    """
    facts = facts_of_data(layout)
    index, transform = read_index(layout.data), transform_of(facts)
    if photo is not None and transform is None:
        raise ConfigError(
            f"augment {photo} must know the size that images are cut to, got none. Give "
            "--data.image-size where the data are indexed, or another --train.augment."
        )
    shape = facts["num_classes"], facts["channels"], transform
    needed = decoded_bytes(index, facts["channels"], transform)
    folder = _folder(config)
    chosen, why = _chosen(way, needed, config, photo, nodes)
    size = _size(needed)
    if chosen == "memory":
        log.info("data: %s decoded, in memory: %s", size, why)
        return load_study_data(index, *shape, config.max_reject_share)
    source = StudySource(layout.data, *shape, folder, config.max_reject_share, config.cache_bytes)
    if chosen == "disk":
        log.info("data: %s decoded, kept in %s of each node: %s", size, folder, why)
        return source
    log.info("data: streamed, %s decoded every epoch and not kept: %s", size, why)
    if is_mixed:
        _tell_requests(index)
    map_fn = functools.partial(ray_map, nodes=config.nodes, stage="data", wait_s=wait_s)
    return _looked_at(source, index, needed, layout, map_fn)


def _looked_at(
    source: StudySource,
    index: Index,
    needed: int,
    layout: RunLayout,
    map_fn: Callable[..., Iterable[Any]],
) -> StudySource:
    """Returns the source of streamed images, all of which were looked at once in this run."""
    source = StudySource(**{**vars(source), "survey_url": files.join(layout.data, "survey")})
    if needed <= _HERE_BYTES:
        source.surveyed()
        return source
    ensure_ray()
    log.info(
        "data: %d images are looked at, unless that was done in this run: which can be decoded, "
        "and their channels' means", index.examples.num_rows,
    )  # fmt: skip
    source.surveyed(map_fn)
    return source


def _chosen(
    way: str, needed: int, config: DataConfig, photo: str | None, nodes: tuple[str, ...]
) -> tuple[str, str]:
    """Returns memory, disk or stream, and why."""
    if way != "auto":
        if way == "memory" and needed > config.memory_bytes:
            return way, f"as asked, beyond memory_bytes of {_size(config.memory_bytes)}"
        return way, "as asked"
    if photo is not None:
        return "stream", f"{photo} cuts images out of the stored photographs"
    most = _size(config.memory_bytes)
    if needed <= config.memory_bytes:
        return "memory", f"at most memory_bytes, {most}"
    folder = _folder(config)
    room = room_on_disks(folder, config.cache_bytes, nodes)
    if needed <= room.num_bytes:
        return "disk", f"more than memory_bytes, {most}, and the disk has room {room.where}"
    where = "" if room.where == "here" else f" {room.where}"
    return (
        "stream",
        f"more than memory_bytes, {most}, and than {folder} has room for, "
        f"{_size(room.num_bytes)}{where}",
    )


def _size(num_bytes: int) -> str:
    for unit, of in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= of / 10:
            return f"{num_bytes / of:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"
