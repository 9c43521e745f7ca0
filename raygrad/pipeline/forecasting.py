"""What a whole study will take, before it is paid for, from rates measured on a few examples."""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raygrad.config import StudyConfig
from raygrad.data.decode import decode_image
from raygrad.data.index import Index, read_index
from raygrad.data.limiting import limited_index
from raygrad.data.reading import read_rows
from raygrad.data.shards import DATASET_FILE
from raygrad.data.transforms import CropTransform
from raygrad.engine.nodes import offer_of
from raygrad.engine.placement import Placement, place_training, trial_needs
from raygrad.engine.score.pool import pool_size, scoring_placement
from raygrad.engine.session import ensure_ray
from raygrad.engine.sweep import job as sweep_engine
from raygrad.engine.sweep.calibrate import calibrate, scoring_rate
from raygrad.errors import DataError
from raygrad.pipeline.binding import complete_stages
from raygrad.pipeline.data_ways import is_streamed
from raygrad.pipeline.replicates import compared_networks, trained_replicates
from raygrad.pipeline.selecting import grid
from raygrad.pipeline.settling import of_these_inputs
from raygrad.pipeline.stages import transform_of
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ResultRows
from raygrad.storage import files
from raygrad.storage.manifest import read_json, read_marker
from raygrad.training.plan import Rates, Sizes, predict, trial_time
from raygrad.training.study_data import StudyData, load_study_data
from raygrad.training.trial import Trial

Measure = Callable[[tuple[str, ...], Placement], dict[str, Rates]]
"""Measures the rates of networks, for what one trial takes and how many run at a time."""

SAMPLE = 512
"""Training examples that rates are measured on, or two batches where that is more."""


@dataclass(frozen=True)
class Forecast:
    """What one stage will take at most."""

    stage: str
    """decode, train, score or sweep."""
    wall_s: float
    """Seconds from its start to its end."""
    device_hours: float
    """Hours of CPUs or GPUs that it holds."""
    device: str
    """What device-hours count: CPU or GPU."""
    note: str
    """On what the figures stand."""
    placed: str = ""
    """Where the stage will stand, as a line."""

    def line(self, price_per_hour: float) -> str:
        """Returns the forecast as a line of text, with its cost where there is a price."""
        cost = f", cost {self.device_hours * price_per_hour:.2f}" if price_per_hour else ""
        hours = f"{self.device_hours:.3g} {self.device}-hours{cost}"
        said = f"{self.stage:8} at most {self.wall_s:,.0f} s, {hours} ({self.note})"
        return f"{said}\n{'':8} {self.placed}" if self.placed else said


def forecast(config: StudyConfig, seconds: float) -> list[Forecast] | None:
    """Predicts the stages that are not complete, from a short measurement on this cluster.

    Nothing of the run folder is changed. Without early stopping; the start of Ray Train is not
    counted. Images are decoded once for training and retraining, streamed ones in every epoch too,
    and by each actor for scoring: on a CPU before the network's work, beside a GPU at the same time
    as it.

    Args:
        config: The study.
        seconds: How long each network's rate is measured.

    Returns:
        The forecasts; None where the data are not prepared, so that their number is not known.

    Raises:
        ResourceError: The cluster cannot hold one trial, or has no GPU where one is asked for.
    """
    layout = RunLayout(config.run)
    if read_marker(layout.marker("prepare")) is None:
        return None
    ensure_ray()
    done = complete_stages(config)
    sizes, sample, decode_s = _sample(config, layout)
    measure, rate = _measurers(config, sample, seconds)
    trial_measure = measure
    if is_streamed(config):
        measure = functools.partial(_with_decoding, measure, decode_s, config.train.loaders)
    if is_streamed(config, for_trials=True):
        trial_measure = functools.partial(
            _with_decoding, trial_measure, decode_s, config.train.loaders
        )
    found = []
    trains = f"train-{config.train.network}" not in done
    if trains:
        found.append(_training(config, sizes, measure))
    if f"score-{config.scored_network}" not in done:
        found.append(_scoring(config, sizes, decode_s, rate))
    for other, name in [*trained_replicates(config), *compared_networks(config)]:
        if not files.exists(layout.marker(f"train-{name}")):
            found.append(_named(name, _training(other, sizes, measure)))
            trains = True
        if not files.exists(layout.marker(f"score-{name}")):
            found.append(_named(name, _scoring(other, sizes, decode_s, rate)))
    trials = _trials(config, sizes)
    left = _unfinished(config, trials)
    if left:
        found.append(_sweep(config, left, len(trials), sizes, trial_measure))
    return [_decoding(sizes, decode_s), *found] if trains or left else found


def _with_decoding(
    measure: Measure,
    decode_s: float,
    loaders: int | None,
    networks: tuple[str, ...],
    placed: Placement,
) -> dict[str, Rates]:
    """Measures for streamed images, which are decoded beside training: the slower of both counts.

    Args:
        measure: Measures without decoding.
        decode_s: Seconds to read and decode an image on one thread.
        loaders: Processes that decode beside each worker; by default one a thread of it.
        networks: As of `Measure`.
        placed: As of `Measure`.
    """
    own = placed.each.get("CPU", 1.0) if loaders is None else loaders
    image_s = decode_s / max(1, int(own))
    return {
        name: dataclasses.replace(
            rates,
            example_s=max(rates.example_s, image_s),
            eval_example_s=max(rates.eval_example_s, image_s),
        )
        for name, rates in measure(networks, placed).items()
    }


def _measurers(
    config: StudyConfig, sample: StudyData, seconds: float
) -> tuple[Callable[..., dict[str, Rates]], Callable[..., float]]:
    """Returns what measures training and scoring, each of them once for what runs alike.

    Often a worker of the training is what a trial of the sweep is: then one measurement serves.
    """
    measured: dict[Any, dict[str, Rates]] = {}
    scored: dict[Any, float] = {}

    def measure(networks: tuple[str, ...], placed: Placement) -> dict[str, Rates]:
        key = networks, trial_needs(placed), placed.count, tuple(placed.labels.items())
        if key not in measured:
            measured[key] = calibrate(
                networks, config.train, sample, placed, seconds, config.wait_s
            )
        return measured[key]

    def rate(other: StudyConfig, placed: Placement) -> float:
        key = other.scored_network, other.score
        if key not in scored:
            scored[key] = scoring_rate(
                other.score, other.scored_network, placed, sample, seconds, config.wait_s
            )
        return scored[key]

    return measure, rate


def _sample(config: StudyConfig, layout: RunLayout) -> tuple[Sizes, StudyData, float]:
    """Returns the splits' sizes, a few examples with the data set's classes, and what one takes.

    That is the seconds to read and decode one of them on one thread.
    """
    facts = read_json(files.join(layout.data, DATASET_FILE))
    index = read_index(layout.data)
    sizes = Sizes(*(sum(index.counts(split).values()) for split in ("train", "val", "test")))
    few = limited_index(index, max(SAMPLE, 2 * config.train.batch_size))
    data = load_study_data(few, len(few.classes), facts["channels"], transform_of(facts))
    decode_s = _decode_s(few, facts["channels"], transform_of(facts))
    sizes = dataclasses.replace(sizes, side=max(data.spec.height, data.spec.width))
    return sizes, dataclasses.replace(data, num_classes=facts["num_classes"]), decode_s


def _decode_s(index: Index, channels: int, transform: CropTransform | None) -> float:
    begun_s, count = time.perf_counter(), 0
    for example in itertools.islice(read_rows(index, index.rows("train")), SAMPLE):
        # What cannot be decoded takes as long to find out.
        with contextlib.suppress(DataError):
            if transform is None:
                decode_image(example.image, channels=channels)
            else:
                transform.score(example.image, channels=channels)
        count += 1
    return (time.perf_counter() - begun_s) / max(count, 1)


def _decoding(sizes: Sizes, decode_s: float) -> Forecast:
    """Returns what decoding all images once takes, on the CPUs of one node."""
    threads, count = os.cpu_count() or 1, sizes.train + sizes.val + sizes.test
    note = f"{count:,} images once, {threads} threads, {1 / max(decode_s, 1e-9):.3g} images/s each"
    return _forecast("decode", count * decode_s / threads, threads, False, note)


def _training(config: StudyConfig, sizes: Sizes, measure: Measure) -> Forecast:
    recipe = config.train
    placed = place_training(recipe, offer_of(recipe.nodes))
    gpus, workers = placed.device == "cuda", placed.count
    rates = measure((recipe.network,), placed)[recipe.network]
    share = dataclasses.replace(
        rates,
        example_s=rates.example_s / workers,
        eval_example_s=rates.eval_example_s / workers,
    )
    took = trial_time(_full(recipe.network, sizes), share, recipe, sizes, recipe.epochs)
    devices = workers * (1 if gpus else recipe.cpus_per_worker)
    note = f"{recipe.epochs} epochs, {workers} workers, {_per_s(rates)} images/s each"
    return _forecast("train", took.time_s, devices, gpus, note, placed.line())


def _scoring(
    config: StudyConfig,
    sizes: Sizes,
    decode_s: float,
    rate_of: Callable[[StudyConfig, Placement], float],
) -> Forecast:
    placed = scoring_placement(config.score)
    gpus = placed.device == "cuda"
    # As many as begin; the data set has more shards than that.
    *_, actors = pool_size(config.score, placed.count, sizes.train)
    placed = dataclasses.replace(placed, count=actors)
    each = placed.each["GPU" if gpus else "CPU"]
    rate = rate_of(config, placed)
    # A core that decodes does not score; beside a GPU the slower of the two is what counts.
    image_s = max(1 / rate, decode_s / placed.threads) if gpus else 1 / rate + decode_s
    note = f"{actors} actors, {1 / image_s:.3g} images/s each with decoding"
    wall_s = sizes.train * image_s / actors
    return _forecast("score", wall_s, actors * each, gpus, note, placed.line())


def _named(name: str, said: Forecast) -> Forecast:
    """Returns the forecast of a network beside the run's own, which its note names."""
    return dataclasses.replace(said, note=f"{name}: {said.note}")


def _trials(config: StudyConfig, sizes: Sizes) -> list[Trial]:
    """Returns every retraining that the configuration asks for."""
    return [
        dataclasses.replace(
            _full(network, sizes), method=method, keep_fraction=fraction, seed=seed,
            protocol=protocol, budget=max(1, math.floor(fraction * sizes.train)),
        )
        for network in config.sweep.networks or (config.train.network,)
        for _ in config.select.score_seeds or (None,)
        for method, fraction, seed in grid(config.select)
        for protocol in config.sweep.protocols
    ]  # fmt: skip


def _sweep(
    config: StudyConfig, trials: list[Trial], asked: int, sizes: Sizes, measure: Measure
) -> Forecast:
    placed = sweep_engine.sweep_placement(config.sweep)
    needs, at_a_time = trial_needs(placed), placed.count
    rates = measure(config.sweep.networks or (config.train.network,), placed)
    times = [
        trial_time(t, rates[t.network], config.train, sizes, config.train.epochs) for t in trials
    ]
    start_s = max(rate.start_s for rate in rates.values())
    devices = needs.num_workers * (needs.gpus_each or needs.cpus_each)
    said = predict(times, at_a_time, start_s, devices)
    unit = "GPU" if needs.gpus_each else "CPU"
    note = f"{len(trials)} retrainings{_of(asked, len(trials))}, {at_a_time} at a time"
    placed_line = placed.line(min(at_a_time, len(trials)))
    return Forecast("sweep", said.wall_s, said.device_hours, unit, note, placed_line)


def _of(asked: int, left: int) -> str:
    return f" of {asked}, the others are finished" if left < asked else ""


def _unfinished(config: StudyConfig, asked: list[Trial]) -> list[Trial]:
    """Returns the trials without a row, by what it says of its subset; each scoring network one."""
    layout = RunLayout(config.run)
    rows = of_these_inputs(config, ResultRows(layout.sweep, layout.results).rows.values())
    names = ("network", "protocol", "method", "keep_fraction", "seed")
    there = Counter(tuple(row[name] for name in names) for row in rows)
    left = []
    for trial in asked:
        name = tuple(getattr(trial, name) for name in names)
        if there[name]:
            there[name] -= 1
        else:
            left.append(trial)
    return left


def _full(network: str, sizes: Sizes) -> Trial:
    """Returns a training on everything."""
    return Trial(network, "", "", "random", 1.0, sizes.train, 0, "equal_epochs", "", "")


def _per_s(rates: Rates) -> str:
    return f"{1 / rates.example_s:.3g}" if rates.example_s else "unmeasurably many"


def _forecast(
    stage: str, wall_s: float, devices: float, gpus: bool, note: str, placed: str = ""
) -> Forecast:
    unit = "GPU" if gpus else "CPU"
    return Forecast(stage, wall_s, wall_s * devices / 3600, unit, note, placed)
