"""What several subcommands share: the flags of a run folder, and its configuration.

What a stage needs is imported when it runs: torch, Ray and the stores take seconds, which a help
page or a wrong flag need not wait for.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import tyro

from raygrad import pipeline
from raygrad.config import StudyConfig
from raygrad.errors import ConfigError

if TYPE_CHECKING:
    from raygrad.runs.layout import RunLayout

Redo = Annotated[
    bool,
    tyro.conf.arg(
        help="Do again, and remove with all that came of it, what is complete of other inputs; "
        "a stage of its own is done again in any case."
    ),
]

Run = Annotated[str, tyro.conf.arg(help="The run folder, on local disk or s3://.")]
Wait = Annotated[
    float,
    tyro.conf.arg(
        help="Seconds that room on the cluster is waited for, inf for ever; then: exit 3."
    ),
]


def layout(run: str) -> "RunLayout":
    """Returns where everything stands in a run folder."""
    from raygrad.runs.layout import RunLayout

    return RunLayout(run)


def stored_or_new(run: str) -> StudyConfig:
    """Returns the configuration of a run folder, a new one where there is none."""
    return pipeline.stored_config(run) or StudyConfig(run)


def as_before(tars: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    """Returns names of data as the run has them, where a slash at the end is all that differs."""
    same = [one.rstrip("/") for one in tars] == [one.rstrip("/") for one in before]
    return before if same else tars


def seeded(config: StudyConfig, score_seeds: tuple[int, ...]) -> StudyConfig:
    """Returns a study with these scoring networks, or with its own where none are named."""
    if not score_seeds:
        return config
    return replace(config, select=replace(config.select, score_seeds=score_seeds))


def accepting(config: StudyConfig, max_reject_share: float | None) -> StudyConfig:
    """Returns what a stage is given: the run's configuration with another share of rejects.

    What was indexed stays bound to the share that it was indexed with.
    """
    if max_reject_share is None:
        return config
    return replace(config, data=replace(config.data, max_reject_share=max_reject_share))


def existing(run: str) -> StudyConfig:
    """Returns the configuration of a run folder.

    Raises:
        ConfigError: There is none.
    """
    config = pipeline.stored_config(run)
    if config is None:
        raise ConfigError(
            f"run folder must exist, got {run!r} without a config.json. "
            "Check the path, or begin a run: raygrad prepare, raygrad run."
        )
    return config
