"""The configuration that a run folder keeps; every command begins with it, so it loads little."""

import json

from raygrad.config import StudyConfig
from raygrad.config_values import from_dict
from raygrad.runs.layout import RunLayout
from raygrad.storage import files


def stored_config(run_url: str) -> StudyConfig | None:
    """Returns the configuration of a run folder, or None where there is no run yet."""
    url = RunLayout(run_url).config
    if not files.exists(url):
        return None
    values = json.loads(files.read_bytes(url))
    return from_dict({**values, "run": run_url})
