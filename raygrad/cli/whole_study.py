"""A whole study from the command line: run it, or say what it would be; what is printed of it."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raygrad import pipeline
from raygrad.cli.run_flags import layout
from raygrad.config import StudyConfig
from raygrad.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from raygrad.runs.layout import RunLayout

log = logging.getLogger("raygrad")

PLAN_SECONDS = 5.0
"""How long `--plan` measures each network."""


def run_study(config: StudyConfig, redo: bool = False) -> None:
    """Runs a study and prints its table of results and where everything is."""
    results = pipeline.run(config, redo)
    print_results(results)
    where = layout(config.run)
    print_wall_time(where)
    print(f"results  {where.results}")
    print(f"report   {where.report}/index.html")


def print_wall_time(where: "RunLayout") -> None:
    """Prints how long the run was worked on, over all starts that its journal holds."""
    from raygrad.runs.journal import read_journal, wall_s

    try:
        entries = read_journal(where.journal)
    except DataError as error:
        log.warning("%s", error)
        return
    starts = len({entry.process for entry in entries})
    if starts:
        print(f"time     {wall_s(entries):,.0f} s in {starts} start{'s' * (starts != 1)}")


def print_status(config: StudyConfig) -> None:
    """Prints how far each stage of a run is, how long it took, what it cost, and what is next."""
    found = pipeline.status(config)
    price = config.score.price_per_hour
    print(f"run            {config.run}")
    for stage in found:
        print(stage.line(price))
    hours = sum(stage.device_hours for stage in found)
    cost = f", cost {hours * price:.2f}" if price else ""
    print(f"{'together':14} {hours:.3g} device-hours{cost}")
    left = [stage for stage in found if stage.state != "complete"]
    if any(stage.state == "running" for stage in left):
        print(f"{'next':14} wait: a process is at work")
    elif left:
        print(f"{'next':14} {_next_command(config.run, [stage.stage for stage in left])}")


def _next_command(run: str, left: Sequence[str]) -> str:
    """Returns what goes on with a run; an audit and its page need no study."""
    if left[0] == "audit":
        return f"raygrad audit --run {run}"
    return f"raygrad report {run}" if list(left) == ["report"] else f"raygrad run --run {run}"


def prepare_study(config: StudyConfig, redo: bool = False) -> None:
    """Does the first stage of a study."""
    with pipeline.bound(config, redo):
        pipeline.prepare(config)


def print_results(results: "pa.Table") -> None:
    """Prints test accuracy by network, method and keep_fraction, and what its spread is over."""
    from raygrad.report import summary_rows  # with all of Matplotlib

    head = ("network", "method", "protocol", "keep_fraction", "test accuracy", "std", "std over")
    print("{:14} {:26} {:12} {:>13} {:>13} {:>8} {:>10}".format(*head))
    rows = summary_rows(results)
    for row in rows:
        spread = f"{row['std']:.4f}" if row["n"] > 1 else "n/a"
        replicate = "seed" if row["score_networks"] < 2 else "network"
        over = f"{row['n']} {replicate}{'s' * (row['n'] != 1)}"
        print(
            f"{row['network']:14} {row['method']:26} {row['protocol']:12} "
            f"{row['keep_fraction']:13g} {row['mean']:13.4f} {spread:>8} {over:>10}"
        )
    if rows:
        print(_replicate_words({row["score_networks"] for row in rows}))


def _replicate_words(score_networks: set[int]) -> str:
    """What a standard deviation of the table says, by the numbers of scoring networks in it."""
    several = "std over networks: between the means of scoring networks, trained from other seeds"
    one = (
        "std over seeds: between retrainings given one scoring network; another may scatter more "
        "(--score-seeds 0 1 2)"
    )
    words = [several] if max(score_networks) > 1 else []
    return "\n".join(words + ([one] if 1 in score_networks else []))


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
    compared = () if config.score.is_own else config.select.compare_networks
    beside = "".join(f"; {name} to compare" for name in compared)
    print(f"train    {recipe.network}, {batches}{seeds}{beside}")
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
    if not forecasts:
        print("time     nothing is left to compute")
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
