"""Measures training rates under the load of a sweep: as many trials beside each other."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raygrad.config import DEFAULT_WAIT_S, ScoreConfig, TrainConfig
from raygrad.engine.placement import Placement, trial_needs
from raygrad.engine.score.networks import NetworkScorer
from raygrad.engine.sweep.group import run_in_group
from raygrad.engine.sweep.packing import TrialNeeds
from raygrad.engine.sweep.trial_process import SharedData
from raygrad.engine.waiting import Need, granted
from raygrad.errors import IncompleteError
from raygrad.scoring.memory import batch_size_for
from raygrad.training.calibration import mean_rates, measure_rates
from raygrad.training.models import build_network
from raygrad.training.plan import Rates
from raygrad.training.study_data import StudyData, StudySource

log = logging.getLogger("raygrad")

# Enough to load a machine as a sweep does; a large cluster need not be filled to know its rate.
MOST_AT_A_TIME = 16
# What others hold, or an autoscaler has only promised, is not waited for to know a rate.
OTHERS_S = 10.0
# A measurement takes seconds; one that takes longer than this, with its start, is given up.
BOUND_S = 300.0


def calibrate(
    networks: tuple[str, ...],
    recipe: TrainConfig,
    data: StudyData | StudySource,
    placed: Placement,
    seconds: float,
    wait_s: float = DEFAULT_WAIT_S,
) -> dict[str, Rates]:
    """Returns the rates of each network, measured for about `seconds` each.

    Args:
        networks: The networks that will be retrained.
        recipe: How they are trained.
        data: The data set in memory.
        placed: What one trial takes, and how many run at a time.
        seconds: How long each network is measured.
        wait_s: How long room for one trial is waited for.

    Raises:
        ResourceError: The cluster can never hold a trial.
        IncompleteError: There was no room for one in time, or the measurement does not end.
    """
    shared = SharedData.put(data)
    count = min(placed.count, MOST_AT_A_TIME)
    needs = trial_needs(placed)
    need = Need(placed.workers, placed.each, placed.labels)
    with granted("plan", need, count, wait_s, OTHERS_S) as groups:
        _tell_fewer(len(groups), count, "trials")
        begun_s = time.perf_counter()
        actors = [
            ray.remote(_Calibrator)
            .options(
                num_cpus=needs.cpus_each,
                num_gpus=needs.gpus_each,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group,
                    placement_group_bundle_index=0,
                    placement_group_capture_child_tasks=True,
                ),
            )
            .remote([shared])
            for group in groups
        ]
        _results([actor.ready.remote() for actor in actors], BOUND_S)
        process_s = time.perf_counter() - begun_s
        rates, first_s = {}, process_s
        for network in networks:
            tasks = [a.measure.remote(network, recipe, needs, seconds) for a in actors]
            measured = mean_rates(_results(tasks, BOUND_S + seconds))
            rates[network] = measured
            first_s += measured.start_s if network == networks[0] else 0.0
        return {
            network: Rates(r.step_s, r.example_s, r.eval_example_s, r.trial_s, first_s)
            for network, r in rates.items()
        }


def _tell_fewer(there: int, asked: int, what: str) -> None:
    if there < asked:
        log.warning("plan: measured on %d %s instead of %d: no more have room", there, what, asked)


def _results(tasks: Sequence[Any], bound_s: float) -> list[Any]:
    """Returns what measurements gave.

    Raises:
        IncompleteError: One does not end.
    """
    try:
        return ray.get(list(tasks), timeout=bound_s)
    except ray.exceptions.GetTimeoutError as error:
        raise IncompleteError(
            f"a measurement must end within {bound_s:g} s, got none from {len(tasks)} processes. "
            "See whether nodes are overloaded, or give --seconds of less."
        ) from error


def scoring_rate(
    config: ScoreConfig,
    network: str,
    placed: Placement,
    data: StudyData,
    seconds: float,
    wait_s: float = DEFAULT_WAIT_S,
) -> float:
    """Returns the examples that an actor scores in a second while as many score beside it.

    Args:
        config: The columns and the arithmetic.
        network: What is scored with, here with fresh weights.
        placed: Where actors stand, and how many score at a time.
        data: Examples, decoded.
        seconds: How long, about.
        wait_s: How long room for one actor is waited for.

    Raises:
        ResourceError: The cluster can never hold an actor.
        IncompleteError: There was no room for one in time, or the measurement does not end.
    """
    each = placed.each
    shared, count = ray.put(data), min(placed.count, MOST_AT_A_TIME)
    with granted("plan", Need(1, each, placed.labels), count, wait_s, OTHERS_S) as groups:
        _tell_fewer(len(groups), count, "actors")
        tasks = [
            ray.remote(_score_for)
            .options(
                num_cpus=each.get("CPU", 0),
                num_gpus=each.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group),
            )
            .remote(config, network, placed.device, shared, seconds)
            for group in groups
        ]
        measured = _results(tasks, BOUND_S + seconds)
    return float(sum(measured) / len(measured))


def _score_for(
    config: ScoreConfig, network: str, device: str, data: StudyData, seconds: float
) -> float:
    """Scores the same batch again and again; returns examples a second after the first time.

    The batch is as large as the job's own: an update of few examples says little of many.
    """
    torch.set_num_threads(1)
    spec, per_gpu = data.spec, config.actors_per_gpu
    built = build_network(network, spec, 0).eval()
    shape = (spec.channels, spec.height, spec.width)
    size = batch_size_for(config.batch_size, built, shape, device, per_gpu)
    scorer = NetworkScorer(
        [built],
        data.normalize,
        config.columns,
        device=device,
        numerics=config.numerics,
        channels_last=config.channels_last,
        batch_size=size,
    )
    images = data.examples("train").between(0, size).numpy()
    labels = data.train.labels[:size]
    scorer.score(images, labels)
    begun_s, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - begun_s < seconds:
        scorer.score(images, labels)
        times += 1
    return times * len(labels) / (time.perf_counter() - begun_s)


class _Calibrator:
    """Stands where a trial's process will."""

    def __init__(self, shared: list["ray.ObjectRef"]) -> None:
        self._shared = shared

    def ready(self) -> None:
        """Returns once the process is there."""

    def measure(
        self, network: str, recipe: TrainConfig, needs: TrialNeeds, seconds: float
    ) -> Rates:
        """Measures one network, in all processes of the trial together."""
        return run_in_group(needs, _measure_rank, network, recipe, needs, self._shared, seconds)


def _measure_rank(
    network: str,
    recipe: TrainConfig,
    needs: TrialNeeds,
    shared: list["ray.ObjectRef"],
    seconds: float,
) -> Rates:
    held: SharedData = ray.get(shared[0])
    data, _ = held.open()
    device = "cuda" if needs.gpus_each else "cpu"
    return measure_rates(network, recipe, data, device, seconds)
