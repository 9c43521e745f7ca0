"""Measures training rates under the load of a sweep: as many trials beside each other."""

import time

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raygrad.config import TrainConfig
from raygrad.engine.group import run_in_group
from raygrad.engine.packing import TrialNeeds
from raygrad.engine.trial_process import SharedData
from raygrad.training.calibration import mean_rates, measure_rates
from raygrad.training.plan import Rates
from raygrad.training.study_data import StudyData, StudySource

# Enough to load a machine as a sweep does; a large cluster need not be filled to know its rate.
MOST_AT_A_TIME = 16


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
