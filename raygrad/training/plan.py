"""What a sweep will take, from measured rates: time, device-hours, cost, and when scoring pays."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from raygrad.config import TrainConfig
from raygrad.training.trial import Trial
from raygrad.training.validating import MIN_VALIDATIONS, validation_epochs


@dataclass(frozen=True)
class Rates:
    """How fast one trial trains, measured while as many train beside it as will in the sweep."""

    step_s: float
    """Seconds of an update, whatever its batch holds."""
    example_s: float
    """Further seconds of an update for each example of its batch."""
    eval_example_s: float
    """Seconds to evaluate one example."""
    trial_s: float
    """Seconds of a trial apart from updates and evaluations: network, subset, Tune, row."""
    start_s: float
    """Seconds until the first trials begin, once a sweep: processes, imports, Tune."""


@dataclass(frozen=True)
class Sizes:
    """Examples of each split, and how large images are."""

    train: int
    val: int
    test: int
    side: int = 0
    """Pixels of an image's longer side; 0 where it is not known."""


@dataclass(frozen=True)
class TrialTime:
    """A trial with what it is predicted to take."""

    trial: Trial
    epochs: float
    """Epochs that the prediction is for."""
    steps: int
    """Updates in them."""
    time_s: float
    """Seconds, on `num_workers` workers together."""


@dataclass(frozen=True)
class Prediction:
    """What a sweep is predicted to take."""

    times: tuple[TrialTime, ...]
    """Each trial, in the order in which they are started."""
    wall_s: float
    """Seconds from start to end."""
    device_hours: float
    """Hours of CPUs or GPUs that trials hold, over all of them."""

    def cost(self, price_per_device_hour: float) -> float:
        """Returns the price of the device-hours, in the price's currency."""
        return self.device_hours * price_per_device_hour


def trial_time(
    trial: Trial, rates: Rates, recipe: TrainConfig, sizes: Sizes, epochs: float
) -> TrialTime:
    r"""Predicts a trial.

    With :math:`n` examples kept, batch size :math:`B` and :math:`k` updates an epoch
    (:math:`\lceil n / B \rceil` under equal_epochs, :math:`\lceil N / B \rceil` under equal_steps)
    and a validation every :math:`v` epochs,

    .. math:: t = t_{trial} + E \left(k\, t_{step} + k \frac{n}{\lceil n / B \rceil} t_{example}
        + N_{val}\, t_{eval} / v\right) + N_{test}\, t_{eval}

    Examples of the recipe's ``small_epochs`` take :math:`t_{example}` times the share of the area
    that is left of them.

    Args:
        trial: Its budget and protocol.
        rates: How fast its network trains.
        recipe: Its batch size and small images.
        sizes: Examples of the whole splits, and how large they are.
        epochs: The :math:`E` to predict for; the recipe's is the most there can be.
    """
    own_steps = math.ceil(trial.budget / recipe.batch_size)
    steps = math.ceil(sizes.train / recipe.batch_size)
    if trial.protocol == "equal_epochs":
        steps = own_steps
    examples = steps * trial.budget / own_steps
    every = validation_epochs(recipe.validation_steps, steps, recipe.epochs, MIN_VALIDATIONS)
    validated = sizes.val / every
    epoch_s = steps * rates.step_s + examples * rates.example_s + validated * rates.eval_example_s
    area = min(1.0, recipe.small_size / sizes.side) ** 2 if sizes.side else 1.0
    saved_s = min(recipe.small_epochs, epochs) * (1 - area) * examples * rates.example_s
    time_s = rates.trial_s + epochs * epoch_s - saved_s + sizes.test * rates.eval_example_s
    return TrialTime(trial, epochs, round(epochs * steps), time_s)


def predict(
    times: Sequence[TrialTime], slots: int, start_s: float, devices_per_trial: float
) -> Prediction:
    """Predicts a sweep that starts the longest trials first, each as soon as there is room.

    Args:
        times: The trials.
        slots: Trials at a time.
        start_s: Seconds before the first trials begin.
        devices_per_trial: GPUs of a trial, or its CPUs where it has none.
    """
    ordered = sorted(times, key=lambda t: -t.time_s)
    device_s = sum(t.time_s for t in times) * devices_per_trial
    wall_s = start_s + makespan_s([t.time_s for t in ordered], slots)
    return Prediction(tuple(ordered), wall_s if times else 0.0, device_s / 3600)


def makespan_s(times_s: Sequence[float], slots: int) -> float:
    """Returns when the last of some jobs ends, each begun in this order as a slot becomes free."""
    free_at = [0.0] * slots
    for time_s in times_s:
        heapq.heappush(free_at, heapq.heappop(free_at) + time_s)
    return max(free_at)


def break_even(spent_s: float, full_s: float, subset_s: float) -> int | None:
    r"""Returns after how many retrainings scores have paid for themselves, None where never.

    The smallest whole :math:`r` with :math:`spent + r \cdot subset \le r \cdot full`.

    Args:
        spent_s: Device-seconds that training and scoring took, once.
        full_s: Device-seconds of a training on everything.
        subset_s: Device-seconds of a training on the subset.
    """
    saved_s = full_s - subset_s
    return math.ceil(spent_s / saved_s) if saved_s > 0 else None
