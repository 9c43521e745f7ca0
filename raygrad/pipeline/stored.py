"""The configuration that a run folder keeps; every command begins with it, so it loads little."""

from raygrad.config import StudyConfig
from raygrad.config_values import from_dict
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import read_object


def stored_config(run_url: str) -> StudyConfig | None:
    """Returns the configuration of a run folder, or None where there is no run yet.

    Raises:
        ConfigError: Another version of raygrad wrote it.
        DataError: The file is damaged.
    """
    url = RunLayout(run_url).config
    if not files.exists(url):
        return None
    values = read_object(url, "give the run's settings again")
    return from_dict({**values, "run": run_url})
