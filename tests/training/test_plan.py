"""What a sweep will take, against sums by hand."""

import dataclasses
import itertools

import pytest

from raygrad.config import TrainConfig
from raygrad.training.plan import Rates, Sizes, break_even, makespan_s, predict, trial_time
from raygrad.training.trial import Trial

RATES = Rates(step_s=0.01, example_s=0.001, eval_example_s=0.0005, trial_s=0.2, start_s=3.0)
SIZES = Sizes(train=1000, val=100, test=200)
RECIPE = TrainConfig(batch_size=64, epochs=5)


def trial(budget, protocol="equal_epochs"):
    return Trial(
        network="cnn",
        score_network="cnn",
        score_column="loss",
        method="random",
        keep_fraction=budget / 1000,
        budget=budget,
        seed=0,
        protocol=protocol,
        subset_digest="s",
        config_digest="c",
    )


def test_a_trial_is_its_updates_examples_and_evaluations():
    found = trial_time(trial(100), RATES, RECIPE, SIZES, 5)
    assert found.steps == 5 * 2  # 100 examples are two batches of 64
    by_hand = 0.2 + 5 * (2 * 0.01 + 100 * 0.001 + 100 * 0.0005) + 200 * 0.0005
    assert found.time_s == pytest.approx(by_hand)


def test_equal_steps_gives_a_subset_the_full_runs_updates():
    found = trial_time(trial(100, "equal_steps"), RATES, RECIPE, SIZES, 5)
    assert found.steps == 5 * 16  # 1000 examples are 16 batches of 64
    # Each pass over the subset has 2 updates and 100 examples: 16 updates see 800.
    by_hand = 0.2 + 5 * (16 * 0.01 + 800 * 0.001 + 100 * 0.0005) + 200 * 0.0005
    assert found.time_s == pytest.approx(by_hand)


@pytest.mark.parametrize(("side", "area"), [(32, 0.25), (16, 1.0), (12, 1.0), (0, 1.0)])
def test_epochs_of_small_images_take_the_share_of_the_area_that_is_left(side, area):
    """Where images are as small already, or nobody knows their size, nothing is taken off."""
    recipe = dataclasses.replace(RECIPE, small_epochs=2, small_size=16)
    found = trial_time(trial(100), RATES, recipe, dataclasses.replace(SIZES, side=side), 5)
    images = (2 * area + 3) * 100 * 0.001
    by_hand = 0.2 + 5 * (2 * 0.01 + 100 * 0.0005) + images + 200 * 0.0005
    assert found.time_s == pytest.approx(by_hand)


def test_a_small_subset_is_validated_every_few_epochs():
    seldom = dataclasses.replace(RECIPE, validation_steps=5)
    found = trial_time(trial(100), RATES, dataclasses.replace(seldom, epochs=60), SIZES, 6)
    # 2 updates an epoch: a validation every 3 epochs, 2 in 6.
    by_hand = 0.2 + 6 * (2 * 0.01 + 100 * 0.001) + 2 * 100 * 0.0005 + 200 * 0.0005
    assert found.time_s == pytest.approx(by_hand)
    # Of six epochs in all each is validated: 20 times, or once an epoch where there are fewer.
    few = trial_time(trial(100), RATES, dataclasses.replace(seldom, epochs=6), SIZES, 6)
    assert few.time_s == pytest.approx(by_hand + 4 * 100 * 0.0005)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_makespan_is_that_of_a_simulated_queue(slots):
    for times in itertools.product([1.0, 2.0, 5.0], repeat=4):
        free = [0.0] * slots
        for time_s in times:
            at = min(range(slots), key=lambda slot: free[slot])
            free[at] += time_s
        assert makespan_s(times, slots) == max(free)


def test_a_prediction_sums_device_hours_and_price():
    times = [trial_time(trial(n), RATES, RECIPE, SIZES, 5) for n in (100, 500, 1000)]
    found = predict(times, slots=2, start_s=3.0, devices_per_trial=0.5)
    assert [t.trial.budget for t in found.times] == [1000, 500, 100]
    total_s = sum(t.time_s for t in times)
    assert found.device_hours == pytest.approx(total_s * 0.5 / 3600)
    assert found.cost(7200.0) == pytest.approx(total_s)
    assert 3.0 + total_s / 2 <= found.wall_s <= 3.0 + total_s
    assert predict([], 2, 3.0, 1.0).wall_s == 0


def test_scoring_is_paid_after_the_first_retraining_that_covers_it():
    assert break_even(10.0, 5.0, 2.0) == 4  # 10 + 4 * 2 <= 4 * 5, and not with 3
    assert break_even(10.0, 2.0, 2.0) is None
    assert break_even(0.0, 5.0, 2.0) == 0
