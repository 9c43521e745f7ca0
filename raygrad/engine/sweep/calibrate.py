"""Measures training rates under the load of a sweep: as many trials beside each other."""

import time

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raygrad.config import ScoreConfig, TrainConfig
from raygrad.engine.score.networks import NetworkScorer
from raygrad.engine.sweep.group import run_in_group
from raygrad.engine.sweep.packing import TrialNeeds
from raygrad.engine.sweep.trial_process import SharedData
from raygrad.training.calibration import mean_rates, measure_rates
from raygrad.training.models import build_network
from raygrad.training.plan import Rates
from raygrad.training.study_data import StudyData, StudySource

# Enough to load a machine as a sweep does; a large cluster need not be filled to know its rate.
MOST_AT_A_TIME = 16
# Examples of the batch that scoring is measured on.
SCORED = 64


def calibrate(
    networks: tuple[str, ...],
    recipe: TrainConfig,
    data: StudyData | StudySource,
    needs: TrialNeeds,
    at_a_time: int,
    seconds: float,
) -> dict[str, Rates]:
    """Returns the rates of each network, measured for about `seconds` each.

    Args:
        networks: The networks that will be retrained.
        recipe: How they are trained.
        data: The data set in memory.
        needs: What one trial takes.
        at_a_time: How many trials the sweep runs at a time.
        seconds: How long each network is measured.
    """
    shared = SharedData.put(data)
    count = min(at_a_time, MOST_AT_A_TIME)
    groups = [placement_group([needs.bundle] * needs.num_workers) for _ in range(count)]
    try:
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
        ray.get([actor.ready.remote() for actor in actors])
        process_s = time.perf_counter() - begun_s
        rates, first_s = {}, process_s
        for network in networks:
            tasks = [a.measure.remote(network, recipe, needs, seconds) for a in actors]
            measured = mean_rates(ray.get(tasks))
            rates[network] = measured
            first_s += measured.start_s if network == networks[0] else 0.0
        return {
            network: Rates(r.step_s, r.example_s, r.eval_example_s, r.trial_s, first_s)
            for network, r in rates.items()
        }
    finally:
        for group in groups:
            remove_placement_group(group)


def scoring_rate(
    config: ScoreConfig, network: str, device: str, data: StudyData, actors: int, seconds: float
) -> float:
    """Returns the examples that an actor scores in a second while as many score beside it.

    Args:
        config: The columns and the arithmetic.
        network: What is scored with, here with fresh weights.
        device: cpu or cuda.
        data: Examples, decoded.
        actors: How many score at a time.
        seconds: How long, about.
    """
    each = {"num_gpus": 1 / config.actors_per_gpu} if device == "cuda" else {"num_cpus": 1}
    shared = ray.put(data)
    tasks = [
        ray.remote(_score_for).options(**each).remote(config, network, device, shared, seconds)
        for _ in range(min(actors, MOST_AT_A_TIME))
    ]
    measured = ray.get(tasks)
    return float(sum(measured) / len(measured))


def _score_for(
    config: ScoreConfig, network: str, device: str, data: StudyData, seconds: float
) -> float:
    """Scores the same batch again and again; returns examples a second after the first time."""
    torch.set_num_threads(1)
    built = build_network(network, data.spec, 0).eval()
    scorer = NetworkScorer(
        [built],
        data.normalize,
        config.columns,
        device=device,
        dtype=config.dtype,
        channels_last=config.channels_last,
    )
    images, labels = data.train.images[:SCORED], data.train.labels[:SCORED]
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
