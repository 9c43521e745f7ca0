"""Trials: names, seeds, and where a subset's keys stand."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raygrad.errors import DataError
from raygrad.training import retraining
from raygrad.training.retraining import positions_of, retrain
from raygrad.training.trial import Trial
from tests.engine.sweep.sweeping import RECIPE, make_data

TRIAL = Trial(
    network="linear",
    score_network="cnn",
    score_column="loss",
    method="max_gradient",
    keep_fraction=0.1,
    budget=30,
    seed=0,
    protocol="equal_epochs",
    subset_digest="a",
    config_digest="b",
)


def test_replicates_and_purposes_never_share_a_seed():
    replicates = [dataclasses.replace(TRIAL, seed=seed) for seed in range(2000)]
    seeds = [t.derived_seed(purpose) for t in replicates for purpose in ("init", "order")]
    assert len(set(seeds)) == len(seeds)


def test_methods_are_compared_on_the_same_weights_and_order():
    other = dataclasses.replace(TRIAL, method="random", keep_fraction=0.3)
    for purpose in ("init", "order"):
        assert TRIAL.derived_seed(purpose) == other.derived_seed(purpose)


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(Trial) if f.name != "score_seed"]
)
def test_a_trial_that_differs_in_anything_has_another_name(name):
    """But for the seed that its scoring network is said to have: `score_replicate` tells it."""
    value = getattr(TRIAL, name)
    other = value + 1 if isinstance(value, int | float) else "other"
    assert dataclasses.replace(TRIAL, **{name: other}).id != TRIAL.id


def test_trials_by_a_runs_own_scores_keep_the_names_of_older_versions():
    """A row of a study on MNIST: its trial must not be run again."""
    trial = dataclasses.replace(
        TRIAL,
        network="cnn",
        score_column="grad_l2_last_layer_weights",
        method="gradient_cdf",
        keep_fraction=0.0032407407,
        budget=175,
        subset_digest="68bb06b6fb16eea17b6a740415938c87",
        config_digest="fbc0721a56d6b8014ab4b406a98a50dd",
    )
    assert trial.id == "f85ee4d7feaec5cc"


def test_a_random_subset_is_one_trial_whatever_the_scores_were():
    trial = dataclasses.replace(TRIAL, method="random")
    assert dataclasses.replace(trial, score_network="vgg", score_column="el2n").id == trial.id
    assert dataclasses.replace(trial, score_run="other-1").id == trial.id
    assert dataclasses.replace(trial, subset_digest="c").id != trial.id


@given(st.lists(st.text(max_size=3), unique=True, min_size=1), st.randoms())
def test_positions_are_those_of_a_dict(all_keys, random):
    subset = random.sample(all_keys, random.randint(1, len(all_keys)))
    at = {key: position for position, key in enumerate(all_keys)}
    found = positions_of(pa.array(subset), pa.array(all_keys, pa.large_string()))
    assert found.dtype == np.int64
    assert found.tolist() == sorted(at[key] for key in subset)


def test_a_key_that_is_not_in_the_training_split_is_named():
    with pytest.raises(DataError, match="1 of 2 that are not, such as 'v'"):
        positions_of(pa.array(["a", "v"]), pa.array(["a", "b"]))


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(DataError, match="unique"):
        positions_of(pa.array(["a", "a"]), pa.array(["a", "b"]))


def test_a_trial_computes_by_its_numerics_and_its_row_says_so(monkeypatch):
    seen = set()
    evaluate = retraining.evaluate

    def watched(*args):
        seen.add(torch.backends.cudnn.conv.fp32_precision)
        return evaluate(*args)

    monkeypatch.setattr(retraining, "evaluate", watched)
    row = retrain(TRIAL, np.arange(30), dataclasses.replace(RECIPE, numerics="exact"), make_data())
    assert seen == {"ieee"}
    assert (row["numerics"], row["torch"]) == ("exact", torch.__version__)
    assert row["device_name"]
    assert row["micro_batch"] == 0
    assert torch.backends.cudnn.conv.fp32_precision == "tf32", "as torch has it"


@pytest.mark.parametrize("protocol", ["equal_epochs", "equal_steps"])
def test_a_retraining_depends_on_the_set_kept_and_not_on_its_order(protocol):
    data, trial = make_data(), dataclasses.replace(TRIAL, protocol=protocol)
    kept = np.random.default_rng(1).permutation(300)[:30]
    rows = [retrain(trial, order, RECIPE, data) for order in (kept, np.sort(kept))]
    for row in rows:
        del row["train_time_s"], row["loop_time_s"]
    assert rows[0] == rows[1]
    steps_per_epoch = 2 if protocol == "equal_epochs" else 19
    assert rows[0]["steps"] == rows[0]["epochs"] * steps_per_epoch
