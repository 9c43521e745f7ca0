"""The study, stage by stage: prepare, train, score, select, sweep, report.

A stage knows its inputs, its outputs and its completion marker. A stage that is complete is
skipped; one that was complete for other inputs says so and stops, so that nothing is mixed.

A stage's module, and with it Ray Train, Ray Tune or Ray Data, is imported when it is first asked
for: together they take seconds, which scoring alone, or a wrong flag, need not wait for. It may
import `raygrad.engine` and below.

Read first: `stages.py`, then `study.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raygrad.pipeline.auditing import audit
    from raygrad.pipeline.binding import (
        bind,
        bound,
        check,
        complete_stages,
        is_trained,
    )
    from raygrad.pipeline.exporting import export_as, write_scores, write_subset_list
    from raygrad.pipeline.forecasting import Forecast, forecast
    from raygrad.pipeline.influencing import Influence, influence
    from raygrad.pipeline.planning import Plan, check_price, plan
    from raygrad.pipeline.preparing import export, index_shards, is_place, prepare, write_source
    from raygrad.pipeline.scoring import score
    from raygrad.pipeline.selecting import grid, select, subset_urls
    from raygrad.pipeline.stored import stored_config
    from raygrad.pipeline.study import report, run
    from raygrad.pipeline.surveying import StageStatus, status
    from raygrad.pipeline.sweeping import sweep
    from raygrad.pipeline.training import train
    from raygrad.pipeline.worst import worst_keys

__all__ = [
    "Forecast",
    "Influence",
    "Plan",
    "StageStatus",
    "audit",
    "bind",
    "bound",
    "check",
    "check_price",
    "complete_stages",
    "export",
    "export_as",
    "forecast",
    "grid",
    "index_shards",
    "influence",
    "is_place",
    "is_trained",
    "plan",
    "prepare",
    "report",
    "run",
    "score",
    "select",
    "status",
    "stored_config",
    "subset_urls",
    "sweep",
    "train",
    "worst_keys",
    "write_scores",
    "write_source",
    "write_subset_list",
]

_MODULES = {
    "auditing": ("audit",),
    "binding": ("bind", "bound", "check", "complete_stages", "is_trained"),
    "exporting": ("export_as", "write_scores", "write_subset_list"),
    "forecasting": ("Forecast", "forecast"),
    "influencing": ("Influence", "influence"),
    "planning": ("Plan", "check_price", "plan"),
    "preparing": ("export", "index_shards", "is_place", "prepare", "write_source"),
    "scoring": ("score",),
    "selecting": ("grid", "select", "subset_urls"),
    "surveying": ("StageStatus", "status"),
    "stored": ("stored_config",),
    "study": ("report", "run"),
    "sweeping": ("sweep",),
    "training": ("train",),
    "worst": ("worst_keys",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
