"""Settings of data that say nothing of the data that are named: refused, not passed over."""

import logging

from raygrad.config import DataConfig
from raygrad.errors import ConfigError

log = logging.getLogger("raygrad")

_OF_SHARDS = ("test_tars", "labels", "image", "renumber")
"""How shards and tables are read; sources and class folders know it themselves."""
_SPLIT = ("digits", "mnist", "cifar10", "cifar100", "imagenet")
"""Sources with a test split of their own."""
_GREY = ("digits", "mnist")
"""Sources with one colour channel."""


def refuse_unused(data: DataConfig) -> None:
    """Raises ConfigError where a setting is of shards and a source is named, or the other way.

    What a complete run was given before is not asked: only new data are.
    """
    if data.tars:
        _refuse_files_of_sources(data)
        return
    defaults = DataConfig()
    for name in _OF_SHARDS:
        value = getattr(data, name)
        if value != getattr(defaults, name):
            raise ConfigError(
                f"{name} must come with shards, got {_shown(value)} with the source "
                f"{data.source}. Name the shards too, or leave it."
            )
    if data.source == "digits" and (data.data_dir is not None or data.download):
        raise ConfigError(
            f"the source digits must have no files of its own, got {data.data_dir or 'download'}. "
            "Leave it; or name your data alone, such as raygrad prepare FOLDER."
        )
    if data.source in _SPLIT and data.test_fraction != defaults.test_fraction:
        raise ConfigError(
            f"test_fraction must be of class folders or tables, got {data.test_fraction:g} with "
            f"the source {data.source}, which has a test split of its own. Leave it."
        )
    if data.source not in _GREY and data.channels != defaults.channels:
        raise ConfigError(
            f"channels must be of data of your own, got {data.channels} with the source "
            f"{data.source}, which has {defaults.channels}. Give --channels {defaults.channels}; "
            "or name a folder of images alone: raygrad prepare FOLDER."
        )


def _refuse_files_of_sources(data: DataConfig) -> None:
    if data.data_dir is not None or data.download:
        raise ConfigError(
            f"{'download' if data.download else 'data_dir'} must be of a source, got "
            f"{data.data_dir or 'it'} with data that are named: {_shown(data.tars)}. Leave it."
        )


def refuse_unused_of_shards(data: DataConfig, *, is_new: bool) -> None:
    """Raises ConfigError where shards, which stay as they are, are to be split or written anew.

    Args:
        data: What was asked for.
        is_new: Whether nothing is indexed; what is, may have been given such a setting before.
    """
    if is_new and data.out is not None:
        raise ConfigError(
            f"out must be of data that are written as shards, got {data.out} with shards, which "
            "stay as they are. Leave it."
        )
    if is_new and data.shard_bytes != DataConfig.shard_bytes:
        # A job may carry it, for the source that it names by default.
        log.info("prepare: shards stay as they are: shard_bytes %d is not used", data.shard_bytes)
    if data.test_fraction not in (DataConfig.test_fraction, 0.0):
        raise ConfigError(
            f"test_fraction must be of class folders or tables, got {data.test_fraction:g} with "
            "shards, which are not cut. Name test shards: --test-tars."
        )


def refuse_unused_of_folders(data: DataConfig, folder: str) -> None:
    """Raises ConfigError where class folders are given what says how shards are read."""
    defaults = DataConfig()
    for name in _OF_SHARDS[1:]:
        value = getattr(data, name)
        if value not in (getattr(defaults, name), "folder"):
            raise ConfigError(
                f"images in class folders must have the folders' names as labels, got {name} "
                f"{_shown(value)} with {folder}. Leave it; or name shards."
            )


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
