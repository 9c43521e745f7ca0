"""Settings of data that say nothing of the data that are named: refused, not passed over."""

from raygrad.config import DataConfig
from raygrad.errors import ConfigError

_OF_SHARDS = ("test_tars", "labels", "image", "renumber")
"""How shards and tables are read; sources and class folders know it themselves."""


def refuse_unused(data: DataConfig) -> None:
    """Raises ConfigError where a setting is of shards and a source is named, or the other way.

    What a complete run was given before is not asked: only new data are.
    """
    if data.tars:
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


def refuse_unused_of_shards(data: DataConfig) -> None:
    """Raises ConfigError where shards, which stay as they are, are to be split for a test."""
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
