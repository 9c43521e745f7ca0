"""The study, stage by stage: prepare, train, score, select, sweep, report.

A stage knows its inputs, its outputs and its completion marker. A stage that is complete is
skipped; one that was complete for other inputs says so and stops, so that nothing is mixed.
"""

from raygrad.pipeline.binding import bind, check, complete_stages, stored_config
from raygrad.pipeline.forecasting import Forecast, forecast
from raygrad.pipeline.planning import Plan, check_price, plan
from raygrad.pipeline.preparing import export, index_shards, prepare, write_source
from raygrad.pipeline.scoring import score
from raygrad.pipeline.selecting import grid, select, subset_urls
from raygrad.pipeline.study import report, run
from raygrad.pipeline.sweeping import sweep
from raygrad.pipeline.training import train

__all__ = [
    "Forecast",
    "Plan",
    "bind",
    "check",
    "check_price",
    "complete_stages",
    "export",
    "forecast",
    "grid",
    "index_shards",
    "plan",
    "prepare",
    "report",
    "run",
    "score",
    "select",
    "stored_config",
    "subset_urls",
    "sweep",
    "train",
    "write_source",
]
