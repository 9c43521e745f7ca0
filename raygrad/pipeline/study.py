"""The whole study, stage by stage."""

import pyarrow as pa

from raygrad.config import StudyConfig
from raygrad.engine.session import session
from raygrad.pipeline.binding import bind, check
from raygrad.pipeline.preparing import prepare
from raygrad.pipeline.scoring import score
from raygrad.pipeline.selecting import select
from raygrad.pipeline.sweeping import sweep
from raygrad.pipeline.training import train


def run(config: StudyConfig) -> pa.Table:
    """Runs the whole study and returns the table of results.

    Run again with the same folder, it skips what is complete and goes on where it stopped.

    Raises:
        ConfigError: The configuration cannot be used, or the folder is of another one.
        RaygradError: A stage could not finish; what it finished is kept.
    """
    check(config)
    bind(config)
    with session():
        prepare(config)
        train(config)
        score(config)
        select(config)
        results = sweep(config)
    report(config)
    return results


def report(config: StudyConfig) -> str:
    """Writes figures and page from the tables of the run; returns the page's URL."""
    from raygrad.report import write_report  # here: other stages start without matplotlib

    return write_report([config.run])
