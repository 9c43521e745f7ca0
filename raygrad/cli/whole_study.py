"""A whole study from the command line: run it, or say what it would be; what is printed of it."""

import logging

import pyarrow as pa

from raygrad import pipeline
from raygrad.config import StudyConfig
from raygrad.errors import DataError
from raygrad.runs.journal import read_journal, wall_s
from raygrad.runs.layout import RunLayout

log = logging.getLogger("raygrad")

PLAN_SECONDS = 5.0
"""How long `--plan` measures each network."""


def run_study(config: StudyConfig, redo: bool = False) -> None:
    """Runs a study and prints its table of results and where everything is."""
    results = pipeline.run(config, redo)
    layout = RunLayout(config.run)
    print_results(results)
    print_wall_time(layout)
    print(f"results  {layout.results}")
    print(f"report   {layout.report}/index.html")


def print_wall_time(layout: RunLayout) -> None:
    """Prints how long the run was worked on, over all starts that its journal holds."""
    try:
        entries = read_journal(layout.journal)
    except DataError as error:
        log.warning("%s", error)
        return
    starts = len({entry.process for entry in entries})
    if starts:
        print(f"time     {wall_s(entries):,.0f} s in {starts} start{'s' * (starts != 1)}")


def prepare_study(config: StudyConfig, redo: bool = False) -> None:
    """Does the first stage of a study."""
    with pipeline.bound(config, redo):
        pipeline.prepare(config)


def print_results(results: pa.Table) -> None:
    """Prints test accuracy by network, method and keep_fraction: mean and spread over seeds."""
    from raygrad.report import summary_rows  # with all of Matplotlib

    head = ("network", "method", "protocol", "keep_fraction", "n", "test accuracy", "std")
    print("{:14} {:26} {:12} {:>13} {:>3} {:>13} {:>8}".format(*head))
    for row in summary_rows(results):
        spread = f"{row['std']:7.4f}" if row["n"] > 1 else "one seed"
        print(
            f"{row['network']:14} {row['method']:26} {row['protocol']:12} "
            f"{row['keep_fraction']:13g} {row['n']:3d} {row['mean']:13.4f} {spread:>8}"
        )


def print_plan(config: StudyConfig) -> None:
    """Prints the stages of a study, which of them are complete, and the retrainings to come."""
    pipeline.check(config)
    data, recipe = config.data, config.train
    cells = pipeline.grid(config.select)
    print(f"run      {config.run}")
    print(f"prepare  {' '.join(data.tars) or data.source}")
    batches = f"at most {recipe.epochs} epochs in batches of {recipe.batch_size}"
    scored = max(1, len(config.select.score_seeds))
    seeds = f", from {scored} seeds" if scored > 1 else ""
    print(f"train    {recipe.network}, {batches}{seeds}")
    print(f"score    {', '.join(config.score.columns)}")
    print(f"select   {len(cells) * scored} subsets by {config.select.score_column}")
    ways = len(config.sweep.protocols) * max(1, len(config.sweep.networks)) * scored
    trials = len(cells) * ways
    shares = sum(fraction for _, fraction, _ in cells) * ways
    print(f"sweep    {trials} retrainings, {shares:g} times the full training's examples at most")
    done = pipeline.complete_stages(config)
    print(f"complete {', '.join(done) or 'nothing yet'}")
    forecasts = pipeline.forecast(config, PLAN_SECONDS)
    if forecasts is None:
        print("time     not known before the data are prepared: give --prepare as well")
        return
    price = config.score.price_per_hour
    for stage in forecasts:
        print(stage.line(price))
    hours = " and ".join(
        f"{sum(one.device_hours for one in forecasts if one.device == device):.3g} {device}-hours"
        for device in sorted({one.device for one in forecasts})
    )
    cost = sum(one.device_hours for one in forecasts) * price
    print(f"together {sum(one.wall_s for one in forecasts):,.0f} s, {hours}, cost {cost:.2f}")
