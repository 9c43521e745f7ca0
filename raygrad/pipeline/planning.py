"""The plan of a sweep: what its missing trials will take, from rates measured here."""

import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raygrad.config import StudyConfig
from raygrad.config_values import identity
from raygrad.engine.placement import Placement, trial_needs
from raygrad.engine.session import ensure_ray
from raygrad.engine.sweep import job as sweep_engine
from raygrad.engine.sweep.calibrate import calibrate
from raygrad.errors import ConfigError
from raygrad.pipeline.data_ways import trial_data
from raygrad.pipeline.selecting import score_source
from raygrad.pipeline.stages import facts_of_data
from raygrad.pipeline.trial_grid import planned_trials
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ResultRows
from raygrad.runs.score_table import MANIFEST
from raygrad.selection.attributes import MAX_LOSS
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, write_json
from raygrad.training.payback import Cell, Payback
from raygrad.training.payback import paybacks as paybacks_of
from raygrad.training.plan import Prediction, Rates, Sizes, predict, trial_time
from raygrad.training.study_data import StudyData, StudySource
from raygrad.training.trial import Trial

log = logging.getLogger("raygrad")

RATES_FILE = "rates.json"


@dataclass(frozen=True)
class Plan:
    """The trials that a sweep has still to run, and what they will take."""

    at_most: Prediction
    """If no trial stops early: every epoch of the recipe."""
    expected: Prediction | None
    """If trials stop when finished ones of the same network did on average; None before any."""
    num_finished: int
    """Trials that are finished already."""
    placed: Placement
    """Where trials stand, and how many beside each other."""

    def lines(self, price_per_device_hour: float) -> list[str]:
        """Returns the plan as text: a row a kind of trial, then the sums."""
        cells: dict[tuple[str, str, str, float], list[float]] = defaultdict(list)
        for time in self.at_most.times:
            trial = time.trial
            cell = (trial.network, trial.protocol, trial.method, trial.keep_fraction)
            cells[cell].append(time.time_s)
        head = f"{'network':14} {'protocol':12} {'method':26} {'keep_fraction':>13}"
        unit = "GPU" if self.placed.device == "cuda" else "CPU"
        said = [self.placed.line(), f"{head} {'trials':>6} {'s each':>8}"]
        for (network, protocol, method, fraction), times in cells.items():
            row = f"{network:14} {protocol:12} {method:26} {fraction:13g}"
            said.append(f"{row} {len(times):6d} {sum(times) / len(times):8.1f}")
        for text, found in (("every epoch", self.at_most), ("as finished ones", self.expected)):
            if found is not None:
                said.append(
                    f"{text}: {found.wall_s:.0f} s, {self.placed.count} at a time; "
                    f"{found.device_hours:.3f} {unit}-hours, "
                    f"cost {found.cost(price_per_device_hour):.2f}"
                )
        said.append(f"{self.num_finished} trials are finished already")
        return said


def plan(config: StudyConfig, seconds: float, own_subsets: Sequence[str] = ()) -> Plan:
    """Measures the rates of every network that is to be retrained and predicts the sweep.

    The rates are kept in the run folder: the sweep's end compares with what they predict.

    Args:
        config: The study.
        seconds: How long each network's rate is measured.
        own_subsets: As of `sweep`.

    Raises:
        ResourceError: The cluster cannot hold one trial.
    """
    layout = RunLayout(config.run)
    trials = planned_trials(config, own_subsets)
    rows = ResultRows(layout.sweep, layout.results)
    ensure_ray()
    placed = sweep_engine.sweep_placement(config.sweep)
    data = trial_data(config)
    networks = config.sweep.networks or (config.train.network,)
    rates = calibrate(networks, config.train, data, placed, seconds, config.wait_s)
    sizes = Sizes(**data.num_examples, side=_side(data))
    stored = {
        "key": _rates_key(config),
        "at_a_time": placed.count,
        "sizes": dataclasses.asdict(sizes),
        "rates": {network: dataclasses.asdict(r) for network, r in rates.items()},
    }
    write_json(files.join(layout.sweep, RATES_FILE), stored)
    missing, aside = sweep_engine.missing_trials(config.sweep, trials, rows), rows.aside
    todo = [trial for trial, _ in missing if trial.id not in aside]
    epochs = _mean_epochs(rows)
    known = bool(todo) and all(t.network in epochs for t in todo)
    return Plan(
        _predict(config, stored, todo, {}),
        _predict(config, stored, todo, epochs) if known else None,
        len(trials) - len(todo),
        placed,
    )


def predicted_wall_s(
    config: StudyConfig, todo: Sequence[Trial], rows: ResultRows
) -> tuple[float, float] | None:
    """Returns the seconds that the last plan predicts for trials that are now finished.

    Args:
        config: The study.
        todo: The trials that were run.
        rows: Their rows.

    Returns:
        The prediction at most, and that for the epochs that trials turned out to run; None where
        nothing was planned, or for other networks, recipes or resources.
    """
    url = files.join(RunLayout(config.run).sweep, RATES_FILE)
    if not files.exists(url):
        return None
    stored = read_json(url)
    if stored["key"] != _rates_key(config):
        return None
    ran = {trial.id: rows.rows[trial.id]["epochs"] for trial in todo}
    return (
        _predict(config, stored, todo, {}).wall_s,
        _predict(config, stored, todo, ran).wall_s,
    )


def paybacks(
    config: StudyConfig, rows: Sequence[dict[str, Any]]
) -> tuple[float, list[tuple[str, Payback]]]:
    """Returns the device-seconds that scores took, and when subsets pay for them, by network.

    They are those of scoring and, where a run trained the network for it, of that training, for one
    scoring network. Only subsets that were drawn by the configured scores and serve as all the
    data does, of networks that were also retrained on everything; under equal_steps a subset trains
    as long as all the data, so that nothing is there to save.
    """
    spent_s, source = _spent_s(config), score_source(config)
    scores = source.network, config.select.score_column, source.run
    runs: dict[str, dict[str, dict[float, list[tuple[float, float]]]]] = {}
    for row in rows:
        full, method = row["keep_fraction"] >= 1, row["method"]
        drawn_by = row["score_network"], row["score_column"], row.get("score_run")
        counts = full or drawn_by == scores
        if row["test_accuracy"] is None or not counts or row["protocol"] != "equal_epochs":
            continue
        device_s = row["train_time_s"] * (row["num_workers"] or 1)
        of = runs.setdefault(row["network"], {}).setdefault("full" if full else method, {})
        of.setdefault(row["keep_fraction"], []).append((row["test_accuracy"], device_s))
    chance = 1 / max(facts_of_data(RunLayout(config.run))["num_classes"], 1)
    found = []
    for network, by_method in sorted(runs.items()):
        cells = {
            method: {
                share: Cell(*(sum(column) / len(seen) for column in zip(*seen, strict=True)))
                for share, seen in of.items()
            }
            for method, of in by_method.items()
        }
        whole = cells.pop("full", {}).get(1.0)
        if whole is not None:
            paid = paybacks_of(cells, whole, spent_s, margin=MAX_LOSS, chance=chance)
            found += [(network, one) for one in paid]
    return spent_s, found


def _spent_s(config: StudyConfig) -> float:
    source = score_source(config)
    scored_s = float(read_json(files.join(source.url, MANIFEST)).get("score_time_s", 0.0))
    layout = RunLayout(config.select.score_run or config.run)
    url = layout.metrics(source.network.removesuffix("-dynamics"))
    if not files.exists(url):
        return scored_s
    trained = read_json(url)
    return scored_s + float(trained["train_time_s"]) * int(trained["world_size"])


def _side(data: StudyData | StudySource) -> int:
    """Returns the pixels of an image's longer side, 0 where none has been decoded yet."""
    if isinstance(data, StudyData):
        return max(data.spec.height, data.spec.width)
    return data.transform.crop if data.transform else 0


def _predict(
    config: StudyConfig, stored: dict[str, Any], todo: Sequence[Trial], epochs: dict[str, float]
) -> Prediction:
    """Predicts for the epochs known by trial or by network, else for the most there can be."""
    rates = {network: Rates(**values) for network, values in stored["rates"].items()}
    sizes = Sizes(**stored["sizes"])
    needs = trial_needs(sweep_engine.sweep_placement(config.sweep))
    times = [
        trial_time(
            trial,
            rates[trial.network],
            config.train,
            sizes,
            epochs.get(trial.id, epochs.get(trial.network, config.train.epochs)),
        )
        for trial in todo
    ]
    start_s = max((r.start_s for r in rates.values()), default=0.0)
    devices = needs.num_workers * (needs.gpus_each or needs.cpus_each)
    return predict(times, stored["at_a_time"], start_s, devices)


def _mean_epochs(rows: ResultRows) -> dict[str, float]:
    """Returns the mean epochs of finished trials by network."""
    epochs: dict[str, list[int]] = defaultdict(list)
    for row in rows.rows.values():
        if not row["ended_early"]:
            epochs[row["network"]].append(row["epochs"])
    return {network: sum(values) / len(values) for network, values in epochs.items()}


def _rates_key(config: StudyConfig) -> str:
    """Returns a hash of all that rates depend on."""
    needs = dataclasses.asdict(trial_needs(sweep_engine.sweep_placement(config.sweep)))
    networks = config.sweep.networks or (config.train.network,)
    return digest({**identity(config.train), **needs, "networks": list(networks)})


def check_price(price: float) -> None:
    """Raises ConfigError unless a price is at least 0 and finite."""
    if not 0 <= price < math.inf:
        raise ConfigError(f"price_per_device_hour must be at least 0, got {price!r}. Give a price.")
