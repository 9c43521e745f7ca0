"""The whole study, stage by stage."""

from dataclasses import replace

import pyarrow as pa

from raygrad.config import StudyConfig
from raygrad.engine.session import session
from raygrad.pipeline.binding import bound
from raygrad.pipeline.preparing import prepare
from raygrad.pipeline.scoring import score
from raygrad.pipeline.selecting import select
from raygrad.pipeline.sweeping import sweep
from raygrad.pipeline.training import train


def run(config: StudyConfig, redo: bool = False) -> pa.Table:
    """Runs the whole study and returns the table of results.

    Run again with the same folder, it skips what is complete and goes on where it stopped.

    Args:
        config: The study.
        redo: Do again, and remove with all that came of it, what is complete of other inputs.

    Raises:
        ConfigError: The configuration cannot be used, or the folder is of another one.
        RaygradError: A stage could not finish; what it finished is kept.
    """
    with bound(config, redo), session():
        prepare(config)
        train(config)
        score(config)
        # A study that asks for a method asks for what it reads.
        select(replace(config, select=replace(config.select, make_features=True)), redo)
        results = sweep(config, redo=redo)
    report(config)
    return results


def report(config: StudyConfig) -> str:
    """Writes figures and page from the tables of the run; returns the page's URL."""
    from raygrad.report import write_report  # with all of Matplotlib

    return write_report([config.run])
